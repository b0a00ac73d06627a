"""A fleet of two hosts rolls two releases under load; then nothing of it is left."""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

from common import BINARY, ROOT, built

# The longest that it may take, in seconds.
ROLL_S = 60


def commands():
    """The command line of each process of this machine."""
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            # It has just ended.
            continue
    return found


def links():
    return sorted(os.listdir("/sys/class/net"))


binary = os.environ.get("CLUSTERD_BINARY") or built(BINARY)
before = links()
with tempfile.TemporaryDirectory() as place:
    roll = [ROOT / "packaging" / "fleet" / "roll", binary]
    done = subprocess.run(roll, capture_output=True, text=True, timeout=ROLL_S, env={**os.environ, "TMPDIR": place})
    sys.stderr.write(done.stderr)
    if "SKIPPED" in done.stderr:
        sys.exit(0)
    assert done.returncode == 0, done.stdout + done.stderr
    counted = re.search(r"^(\d+) requests, 0 of them not answered with 200", done.stdout, re.M)
    # Four steps, at least 200 requests after each.
    assert counted and int(counted[1]) > 800, done.stdout
    assert len(re.findall(r"^host[12] .* (reload|stop and start) ", done.stdout, re.M)) == 4, done.stdout
    assert os.listdir(place) == [], "its folder is left"
    left = [command for command in commands() if place in command]
    assert not left, left
assert links() == before, links()
print(done.stdout + "fleet: passed")
