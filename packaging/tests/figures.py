"""How long each way in takes, from the package to the first answer, and a start beside PM2's. Prints the tables of docs/installing.md.

Every way begins in an empty folder, with empty caches, and with the packages of target/dist as files: what a registry adds is the
download. `--cargo` builds the crate too, which takes minutes; `--only-cargo` does nothing else.
"""

import contextlib
import os
import pathlib
import platform
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time

from common import BINARY, DIST, MACHINE, PATIENCE_S, VERSION, WORK, answer_of, built, free_port, fresh, skip, wheel
from root import Root

APP = "require('node:http').createServer((question, answer) => answer.end('hello')).listen(process.env.PORT, '127.0.0.1');\n"
ARCH = {"x86_64": "amd64", "aarch64": "arm64"}[MACHINE]
NPM = {"x86_64": "x64", "aarch64": "arm64"}[MACHINE]
WAYS_RUNS = 3
STARTS_RUNS = 9
BUILD_S = 3600


def environment(folder):
    """Nothing of this user's: no cache, no settings."""
    path = os.environ["PATH"]
    return {"PATH": path, "HOME": str(folder), "CLUSTERD_HOME": str(folder / "home"), "npm_config_update_notifier": "false"}


def run(words, folder, env, timeout=PATIENCE_S * 2):
    done = subprocess.run([str(word) for word in words], cwd=folder, env=env, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"


@contextlib.contextmanager
def serving(words, folder, env):
    """A server that is ended with what it started."""
    words = [str(word) for word in words]
    server = subprocess.Popen(words, cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield server
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(PATIENCE_S)


def first_answer(port, server=None):
    """Seconds from now to the first answer; looked at more often than `answer_of` does."""
    began = time.monotonic()
    while True:
        with socket.socket() as found:
            if found.connect_ex(("127.0.0.1", port)) == 0:
                break
        assert server is None or server.poll() is None, "it ended before it answered"
        assert time.monotonic() < began + PATIENCE_S, "no answer"
        time.sleep(0.001)
    answer_of(port)
    return time.monotonic() - began


def once(name, installs, program, folder=None, **more):
    """Seconds of the installation, and from there to the first answer. `more` is for the environment."""
    folder = folder or fresh(f"figures-{name}")
    (folder / "app.js").write_text(APP)
    env, port = {**environment(folder), **more}, free_port()
    began = time.monotonic()
    for words in installs(folder):
        run(words, folder, env, BUILD_S)
    installed = time.monotonic() - began
    words = [*program(folder), "-w", "2", "-p", port, "--", "node", "app.js"]
    with serving(words, folder, env) as server:
        return installed, first_answer(port, server)


def archive(folder):
    return [["tar", "-xzf", f"{BINARY}.tar.gz"]]


def npm(folder):
    return [["npm", "install", "--silent", DIST / f"clusterd-{VERSION}.tgz", DIST / f"clusterd-linux-{NPM}-{VERSION}.tgz"]]


def pip(folder):
    return [["python3", "-m", "venv", "venv"], ["venv/bin/pip", "install", "--quiet", "--no-index", wheel()]]


def cargo():
    """As `once`, and the CPU time of the installation. Outside of this project, which cargo would take for the crate's workspace; the
    toolchain is this user's, and everything else is downloaded."""

    def unpacked(folder):
        with tarfile.open(built(DIST / f"clusterd-{VERSION}.crate")) as crate:
            crate.extractall(folder, filter="data")
        return [["cargo", "install", "--quiet", "--locked", "--root", "installed", "--path", f"clusterd-{VERSION}"]]

    toolchain = os.environ.get("RUSTUP_HOME", str(pathlib.Path.home() / ".rustup"))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory(prefix="clusterd-figures-") as name:
        program = lambda folder: ["installed/bin/clusterd"]
        installed, answered = once("cargo", unpacked, program, pathlib.Path(name), RUSTUP_HOME=toolchain)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return installed, answered, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def deb():
    """As the others, in a root of its own."""
    root = Root("figures-deb")
    try:
        if not root.entered:
            return None
        root.write("/srv/app.js", APP)
        port, began = free_port(), time.monotonic()
        root.run("dpkg", "-i", DIST / f"clusterd_{VERSION}-1_{ARCH}.deb")
        installed, began = time.monotonic() - began, time.monotonic()
        root.run("clusterd", "start", "/srv/app.js", "-i", "2", "-p", port)
        first_answer(port)
        return installed, time.monotonic() - began
    finally:
        root.run("clusterd", "kill", "--now", check=False)
        root.close()


def ways(with_cargo, only_cargo):
    unpacked = lambda folder: [folder / f"clusterd-{VERSION}" / "clusterd"]
    kinds = [
        ("the static archive", "`tar -xzf`, `clusterd`", lambda: once("archive", archive, unpacked)),
        ("npm", "`npm install`, `npx clusterd`", lambda: once("npm", npm, lambda folder: ["npx", "clusterd"])),
        ("pip", "`python3 -m venv`, `pip install`, `clusterd`", lambda: once("pip", pip, lambda folder: ["venv/bin/clusterd"])),
    ]
    if shutil.which("pipx"):
        kinds.append(("pipx", "`pipx run clusterd`", lambda: once("pipx", lambda folder: [], lambda folder: ["pipx", "run", "--spec", wheel(), "clusterd"])))
    else:
        skip("pipx is not installed")
    if os.getuid() == 0:
        kinds.append(("the Debian package", "`apt install`, `clusterd start`", deb))
    else:
        skip("the Debian package needs root")
    print("| way | commands | installed in | first answer after |\n|---|---|---|---|")
    for name, commands, measure in kinds if not only_cargo else []:
        seen = [found for found in (measure() for _ in range(WAYS_RUNS)) if found]
        if seen:
            installed, answered = (statistics.median(column) for column in zip(*seen))
            print(f"| {name} | {commands} | {installed:.1f} s | {answered:.2f} s |", flush=True)
    if with_cargo:
        installed, answered, cpu = cargo()
        took = f"{installed:.0f} s ({cpu:.0f} s of CPU time)"
        print(f"| cargo | `cargo install`, `clusterd` | {took} | {answered:.2f} s |", flush=True)


def pm2():
    folder = WORK / "pm2"
    program = folder / "node_modules" / "pm2" / "bin" / "pm2"
    if not program.exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "install", "--silent", "--prefix", folder, "pm2"], check=True, timeout=300)
    return program


def starts():
    """From the command to the first answer of one worker, in turns."""

    def foreground(words):
        folder = fresh("figures-start")
        (folder / "app.js").write_text(APP)
        env, port = environment(folder), free_port()
        env["PORT"] = str(port)
        with serving([*words(port), "node", "app.js"], folder, env) as server:
            return first_answer(port, server)

    def background(start, kill):
        folder = fresh("figures-start")
        (folder / "app.js").write_text(APP)
        env, port = environment(folder), free_port()
        env.update(PORT=str(port), PM2_HOME=str(folder / "pm2"))
        began = time.monotonic()
        try:
            run([*start, "app.js"], folder, env)
            first_answer(port)
            return time.monotonic() - began
        finally:
            run(kill, folder, env)

    program = ["node", pm2()]
    kinds = {
        "`node app.js` alone": lambda: foreground(lambda port: []),
        "`clusterd -- node app.js`": lambda: foreground(lambda port: [BINARY, "-w", "1", "-p", port, "--"]),
        "`clusterd start app.js`": lambda: background([BINARY, "start"], [BINARY, "kill", "--now"]),
        "`pm2 start app.js`": lambda: background([*program, "start", "-i", "1"], [*program, "kill"]),
    }
    seen = {name: [] for name in kinds}
    for _ in range(STARTS_RUNS):
        for name, measure in kinds.items():
            seen[name].append(measure())
    print("\n| start | first answer after |\n|---|---|")
    for name, times in seen.items():
        print(f"| {name} | {statistics.median(times) * 1000:.0f} ms |", flush=True)


built(BINARY)
cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "")
print(f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} CPUs ({cpu}), Linux {platform.release()}; {BINARY.name}: {BINARY.stat().st_size} bytes\n")
only_cargo = "--only-cargo" in sys.argv
ways(only_cargo or "--cargo" in sys.argv, only_cargo)
if not only_cargo:
    starts()
