"""The Debian package: what lintian says, and its installation, its upgrade under load and its removal.

dpkg runs in a mount namespace of its own whose root is an overlay, so this machine stays as it is.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time

from common import DIST, MACHINE, PATIENCE_S, VERSION, answer_of, built, free_port, get, skip
from load import Load
from root import Root

ARCH = {"x86_64": "amd64", "aarch64": "arm64"}[MACHINE]
PACKAGE = DIST / f"clusterd_{VERSION}-1_{ARCH}.deb"
APP = "require('http').createServer((q, a) => a.end(String(process.pid))).listen(process.env.PORT);\n"


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


def newer_package(folder):
    """The same package with a later version."""
    unpacked = folder / "unpacked"
    subprocess.run(["dpkg-deb", "-R", PACKAGE, unpacked], check=True)
    control = unpacked / "DEBIAN" / "control"
    control.write_text(re.sub(r"^Version: .*$", f"Version: {VERSION}-2", control.read_text(), flags=re.M))
    newer = folder / "newer.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Znone", "-b", unpacked, newer], check=True, stdout=subprocess.DEVNULL)
    return newer


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
root = Root("deb") if os.getuid() == 0 else None
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
