"""Prints LINES numbered lines as fast as its reader takes them, in pieces that end anywhere, then waits.

How many bytes it has printed is in PROGRESS/PID at any time, so that a test knows what must be there when it is killed:
`write` first, then the number."""
import os
import random
import signal

lines = int(os.environ["LINES"])
pid = os.getpid()
text = b"".join(b"%d %d %s\n" % (pid, n, b"x" * (n % 60)) for n in range(lines))
folder = os.environ["PROGRESS"]
os.makedirs(folder, exist_ok=True)
progress = os.open(os.path.join(folder, str(pid)), os.O_WRONLY | os.O_CREAT)
at = 0
while at < len(text):
    at += os.write(1, text[at:at + random.randrange(1, 30000)])
    os.pwrite(progress, b"%020d" % at, 0)
signal.pause()
