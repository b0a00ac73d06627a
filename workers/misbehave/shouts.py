"""Floods its notify socket once the file `go` is there. It writes the file `flooding-PID` when some of it was sent."""
import os
import socket
import time

notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
name = os.environ["NOTIFY_SOCKET"]
notify.connect("\0" + name[1:] if name.startswith("@") else name)
notify.send(b"READY=1")
while not os.path.exists("go"):
    time.sleep(0.02)
sent = 0
while True:
    notify.send(b"READY=1\nSTATUS=message %d" % sent)
    sent += 1
    if sent == 1000:
        open("flooding-%d" % os.getpid(), "w").close()
