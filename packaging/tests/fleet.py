"""A fleet of two hosts rolls two releases under load; then nothing of it is left, also where it was killed."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

from common import BINARY, PATIENCE_S, ROOT, built

# The longest that it may take, in seconds.
ROLL_S = 60


def ours():
    """The processes of fleets: roll, and what it has started in namespaces of its own."""
    found = []
    own = os.readlink("/proc/self/ns/pid")
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            elsewhere = os.readlink(folder / "ns" / "pid") != own
        except OSError:
            # It has just ended.
            continue
        if "fleet/roll" in command or (elsewhere and "haproxy.cfg" in command):
            found.append(command)
    return found


def nothing_is_left():
    until = time.monotonic() + PATIENCE_S
    while ours():
        assert time.monotonic() < until, ours()
        time.sleep(0.05)
    assert sorted(os.listdir("/sys/class/net")) == links


binary = os.environ.get("CLUSTERD_BINARY") or built(BINARY)
links = sorted(os.listdir("/sys/class/net"))
roll = [ROOT / "packaging" / "fleet" / "roll", binary]
done = subprocess.run(roll, capture_output=True, text=True, timeout=ROLL_S)
sys.stderr.write(done.stderr)
if "SKIPPED" in done.stderr:
    sys.exit(0)
assert done.returncode == 0, done.stdout + done.stderr
counted = re.search(r"^(\d+) requests, 0 of them not answered with 200", done.stdout, re.M)
# Four steps, at least 200 requests after each.
assert counted and int(counted[1]) > 800, done.stdout
assert len(re.findall(r"^host[12] .* (reload|stop and start) ", done.stdout, re.M)) == 4, done.stdout
nothing_is_left()

killed = subprocess.Popen(roll, stdout=subprocess.PIPE, text=True)
assert killed.stdout.readline().startswith("host "), "its first line comes when all hosts answer"
assert len(ours()) > 3, ours()
killed.send_signal(signal.SIGKILL)
killed.wait()
nothing_is_left()
print(done.stdout + "fleet: passed")
