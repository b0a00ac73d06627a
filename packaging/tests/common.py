"""What the tests of packages share: where things are, a skip with a reason, a clusterd that is ended whatever happens."""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
DIST = ROOT / "target" / "dist"
WORK = ROOT / "target" / "dist-test"
VERSION = re.search(r'^version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.M).group(1)
MACHINE = os.uname().machine
BINARY = DIST / f"clusterd-{VERSION}-linux-{MACHINE}"
# The longest that anything here may take, in seconds.
PATIENCE_S = 60


def skip(why):
    print(f"SKIPPED: {why}", file=sys.stderr)


def built(path):
    if not path.exists():
        sys.exit(f"{path} is missing: run packaging/build first")
    return path


def wheel(machine=MACHINE):
    """The wheel for a machine: there may be others beside it."""
    found = sorted(DIST.glob(f"clusterd-{VERSION}-py3-none-*_{machine}.whl"))
    return found[0] if found else built(DIST / f"clusterd-{VERSION}-py3-none-{machine}.whl")


def fresh(name):
    """An empty folder of this name."""
    folder = WORK / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


# The sockets of `free_port`, open until this process ends.
held = []


def free_port():
    """A port that nobody else is given meanwhile: it stays bound, without listening. A program that sets SO_REUSEADDR, as clusterd
    and all others here do, binds it too."""
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.bind(("127.0.0.1", 0))
    held.append(found)
    return found.getsockname()[1]


def get(port, path="/", host="127.0.0.1"):
    with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=10) as answer:
        return answer.read().decode()


def answer_of(port, path="/", running=None):
    """The first answer at this port."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            return get(port, path)
        except OSError as error:
            if running is not None and running.poll() is not None:
                raise AssertionError(f"it ended with {running.returncode} before it answered") from error
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


@contextlib.contextmanager
def running(command, **options):
    """A process that gets SIGTERM at the end, and must then end with 0."""
    process = subprocess.Popen([str(word) for word in command], **options)
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        code = process.wait(PATIENCE_S)
        assert code == 0, f"{command} ended with {code}"
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
