"""Asks for its address again and again, and reads none of the answers before the file `read` is there. Then it reads all of
them, says whether each came in its turn, and serves."""
import contextlib
import os
import threading
import time

import node_channel as node

COUNT = 5_000
PORT = int(os.environ["PORT"])


def ask():
    for _ in range(COUNT):
        node.act("queryServer", address=None, port=PORT, addressType=4, fd=None, index=0, flags=0, data=None)


node.become_ready()
first = node.count + 1
asker = threading.Thread(target=ask, daemon=True)
asker.start()
while not os.path.exists("read"):
    time.sleep(0.02)
answers = []
while len(answers) < COUNT:
    message = node.receive()
    if isinstance(message, dict) and "ack" in message:
        answers.append(message["ack"])
asker.join()
print("ANSWERED", answers == list(range(first, first + COUNT)), flush=True)
for connection, taken in node.connections():
    taken()
    with connection, contextlib.suppress(OSError):
        connection.setblocking(True)
        head = b""
        while b"\r\n\r\n" not in head and (piece := connection.recv(1000)):
            head += piece
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
