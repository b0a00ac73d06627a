"""The Debian package: what lintian says, and its installation, its upgrade under load and its removal.

dpkg runs in a mount namespace of its own whose root is an overlay, so this machine stays as it is.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time

from common import DIST, MACHINE, PATIENCE_S, VERSION, answer_of, built, fresh, free_port, get, skip

ARCH = {"x86_64": "amd64", "aarch64": "arm64"}[MACHINE]
PACKAGE = DIST / f"clusterd_{VERSION}-1_{ARCH}.deb"
APP = "require('http').createServer((q, a) => a.end(String(process.pid))).listen(process.env.PORT);\n"
# What the load does at most, in requests.
REQUESTS_MAX = 50_000


def contents_are_as_they_should():
    listed = subprocess.run(["dpkg-deb", "-c", built(PACKAGE)], check=True, capture_output=True, text=True).stdout
    files = {line.split()[-1].removeprefix("."): line.split()[:2] for line in listed.splitlines()}
    for path in [
        "/usr/bin/clusterd",
        "/usr/lib/systemd/system/clusterd@.service",
        "/etc/clusterd/README",
        "/usr/share/man/man1/clusterd.1.gz",
        "/usr/share/bash-completion/completions/clusterd",
        "/usr/share/zsh/vendor-completions/_clusterd",
        "/usr/share/fish/vendor_completions.d/clusterd.fish",
        "/usr/share/doc/clusterd/copyright",
    ]:
        assert path in files, f"{path} is missing"
    assert files["/usr/bin/clusterd"] == ["-rwxr-xr-x", "root/root"], files["/usr/bin/clusterd"]


def lintian_finds_no_error():
    if shutil.which("lintian") is None:
        return skip("lintian is not installed")
    done = subprocess.run(["lintian", "--fail-on", "error", "--tag-display-limit", "0", PACKAGE], capture_output=True, text=True)
    print(done.stdout, end="", file=sys.stderr)
    assert done.returncode == 0, done.stdout + done.stderr


class Root:
    """A root folder over that of this machine, in which changes are lost."""

    def __init__(self):
        self.folder = fresh("deb")
        (self.folder / "merged").mkdir()
        script = f"""
            set -e
            cd {self.folder}
            mount -t tmpfs -o mode=755 tmpfs merged
            mkdir merged/upper merged/work merged/root
            mount -t overlay overlay -o lowerdir=/,upperdir=merged/upper,workdir=merged/work merged/root
            mount --rbind /proc merged/root/proc
            mount --rbind /dev merged/root/dev
            mount -t tmpfs -o mode=755 tmpfs merged/root/run
            mount -t tmpfs -o mode=1777 tmpfs merged/root/tmp
            echo entered
            exec sleep {PATIENCE_S * 10}
        """
        self.holder = subprocess.Popen(["unshare", "-m", "sh", "-c", script], stdout=subprocess.PIPE, text=True)
        self.entered = self.holder.stdout.readline() == "entered\n"

    def run(self, *words, check=True):
        root = str(self.folder / "merged" / "root")
        command = ["nsenter", "-m", "-t", str(self.holder.pid), "chroot", root, *map(str, words)]
        environment = {"PATH": os.environ["PATH"], "HOME": "/root", "DEBIAN_FRONTEND": "noninteractive"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S * 2)
        assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done

    def write(self, path, text):
        self.run("sh", "-c", f"mkdir -p $(dirname {path}) && cat > {path} <<'END'\n{text}END\n")

    def close(self):
        self.holder.kill()
        self.holder.wait()


def newer_package(folder):
    """The same package with a later version."""
    unpacked = folder / "unpacked"
    subprocess.run(["dpkg-deb", "-R", PACKAGE, unpacked], check=True)
    control = unpacked / "DEBIAN" / "control"
    control.write_text(re.sub(r"^Version: .*$", f"Version: {VERSION}-2", control.read_text(), flags=re.M))
    newer = folder / "newer.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Znone", "-b", unpacked, newer], check=True, stdout=subprocess.DEVNULL)
    return newer


class Load:
    """Requests, one after the other, from two threads, each on a connection of its own."""

    def __init__(self, port):
        self.port, self.over, self.answered, self.failed = port, False, 0, []
        self.threads = [threading.Thread(target=self.loop) for _ in range(2)]
        for thread in self.threads:
            thread.start()

    def loop(self):
        for _ in range(REQUESTS_MAX):
            if self.over:
                return
            try:
                get(self.port)
                self.answered += 1
            except OSError as error:
                self.failed.append(str(error))
            time.sleep(0.002)

    def stop(self):
        self.over = True
        for thread in self.threads:
            thread.join()


def installs_upgrades_under_load_and_goes(root):
    root.run("dpkg", "-i", PACKAGE)
    assert root.run("clusterd", "--version").stdout == f"clusterd {VERSION}\n"
    assert "clusterd" in root.run("getent", "passwd", "clusterd").stdout
    port = free_port()
    root.write("/srv/app.js", APP)
    root.run("clusterd", "start", "/srv/app.js", "--name", "web", "-i", "2", "-p", port)
    before = json.loads(root.run("clusterd", "ls", "--json").stdout)[0]
    first = answer_of(port)

    newer = newer_package(root.folder)
    load = Load(port)
    try:
        began = time.monotonic()
        said = root.run("dpkg", "-i", newer).stdout
        took = time.monotonic() - began
        until = time.monotonic() + PATIENCE_S
        while True:
            after = json.loads(root.run("clusterd", "ls", "--json").stdout)[0]
            if (after["upgrade"] or {}).get("keeper") or time.monotonic() > until:
                break
            time.sleep(0.2)
    finally:
        load.stop()
    assert after["upgrade"] and after["upgrade"]["ok"] and after["upgrade"]["keeper"], (after["upgrade"], said)
    assert after["keeper_pid"] == before["keeper_pid"] and after["master_pid"] != before["master_pid"]
    exe = root.run("readlink", f"/proc/{after['keeper_pid']}/exe").stdout
    assert exe == "/usr/bin/clusterd\n", exe
    pids = [worker["pid"] for worker in after["apps"][0]["workers"]]
    assert int(first) in pids, "a worker was replaced"
    assert load.answered > 20 and not load.failed, (load.answered, load.failed[:3])
    print(f"upgrade in {took:.1f} s: {load.answered} requests, {len(load.failed)} lost", file=sys.stderr)

    root.run("clusterd", "delete", "all")
    root.run("dpkg", "-r", "clusterd")
    assert root.run("sh", "-c", "command -v clusterd", check=False).returncode != 0
    assert "clusterd" in root.run("sh", "-c", "ls -d /etc/clusterd").stdout, "configuration stays until a purge"
    root.run("dpkg", "-P", "clusterd")
    assert root.run("ls", "/etc/clusterd", check=False).returncode != 0


contents_are_as_they_should()
lintian_finds_no_error()
passed = 2
root = Root() if os.getuid() == 0 else None
if root is None or not root.entered:
    skip("the installation needs root, and overlayfs")
else:
    try:
        installs_upgrades_under_load_and_goes(root)
        passed += 1
    finally:
        root.run("clusterd", "kill", check=False)
        root.close()
print(f"deb: {passed} tests passed")
