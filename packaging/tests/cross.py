"""Packages for another architecture than this machine's (packaging/build --machine): what is in them, and what the emulator of QEMU
runs of the binary."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile

from common import DIST, MACHINE, ROOT, VERSION, built, fresh, skip, wheel

OTHER = {"x86_64": "aarch64", "aarch64": "x86_64"}[MACHINE]
# What readelf, npm and Debian call it.
ELF, NPM, DEB = {"aarch64": ("AArch64", "arm64", "arm64"), "x86_64": ("Advanced Micro Devices X86-64", "x64", "amd64")}[OTHER]
BINARY = DIST / f"clusterd-{VERSION}-linux-{OTHER}"
QEMU = shutil.which(f"qemu-{OTHER}-static") or shutil.which(f"qemu-{OTHER}")


def output(*words, **options):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=120, **options)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def a_static_file_of_that_machine():
    headers = output("readelf", "-hlW", BINARY)
    assert re.search(rf"Machine:\s+{ELF}$", headers, re.M), headers
    assert "INTERP" not in headers, "it wants a loader"
    sections = output("readelf", "-SW", BINARY)
    assert ".symtab" not in sections and ".gnu_debuglink" in sections, sections
    assert ".debug_line" in output("readelf", "-SW", built(BINARY.with_name(BINARY.name + ".debug")))


def the_packages_hold_it():
    content = BINARY.read_bytes()
    with tarfile.open(built(DIST / f"clusterd-linux-{NPM}-{VERSION}.tgz")) as package:
        assert package.extractfile("package/bin/clusterd").read() == content
        assert package.getmember("package/bin/clusterd").mode & 0o111 == 0o111
        about = json.load(package.extractfile("package/package.json"))
        assert (about["os"], about["cpu"]) == (["linux"], [NPM]), about
    with zipfile.ZipFile(wheel(OTHER)) as package:
        assert package.testzip() is None
        assert package.read(f"clusterd-{VERSION}.data/scripts/clusterd") == content
        tags = package.read(f"clusterd-{VERSION}.dist-info/WHEEL").decode()
        assert f"musllinux_1_1_{OTHER}\n" in tags and MACHINE not in tags, tags


def it_runs():
    assert output(QEMU, BINARY, "--version") == f"clusterd {VERSION}\n"
    folder = fresh("cross")
    (folder / "cluster.toml").write_text('[[app]]\nname = "web"\ncommand = ["sleep", "1000"]\nworkers = 2\nport = 8080\n')
    checked = json.loads(output(QEMU, BINARY, "check", "--json", "-c", folder / "cluster.toml", cwd=folder))
    assert checked["ok"] is True and checked["apps"][0]["name"] == "web", checked
    (folder / "cluster.toml").write_text('[[app]]\nname = "web"\ncommand = ["sleep", "1000"]\nwrokers = 2\n')
    refused = subprocess.run([QEMU, BINARY, "check", "-c", "cluster.toml"], cwd=folder, capture_output=True, text=True)
    assert refused.returncode == 2 and 'did you mean "workers"' in refused.stdout + refused.stderr, refused
    folder = fresh("cross")
    output(QEMU, BINARY, "init", cwd=folder)
    assert "[[app]]" in (folder / "cluster.toml").read_text(), "init writes a configuration"


def what_it_says_is_packed():
    """The manual page is written by the binary itself."""
    package = built(DIST / f"clusterd_{VERSION}-1_{DEB}.deb")
    assert output("dpkg-deb", "-f", package, "Architecture") == f"{DEB}\n"
    files = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(files)) as unpacked:
        assert unpacked.extractfile("./usr/bin/clusterd").read() == BINARY.read_bytes()
        assert unpacked.getmember("./usr/share/man/man1/clusterd.1.gz").size > 1000
    with tarfile.open(built(BINARY.with_name(BINARY.name + ".tar.gz"))) as unpacked:
        page = unpacked.extractfile(f"clusterd-{VERSION}/clusterd.1").read().decode()
    assert ".TH clusterd 1" in page, page[:200]


def its_launcher_finds_it():
    """On a machine that calls itself the other one, with QEMU in the place of its processor."""
    folder = fresh("cross-npm")
    for package, place in [(f"clusterd-{VERSION}.tgz", "clusterd"), (f"clusterd-linux-{NPM}-{VERSION}.tgz", f"@clusterd/linux-{NPM}")]:
        with tarfile.open(DIST / package) as archive:
            archive.extractall(folder / "unpacked", filter="data")
        (folder / "node_modules" / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / "unpacked" / "package").rename(folder / "node_modules" / place)
    binary = folder / "node_modules" / "@clusterd" / f"linux-{NPM}" / "bin" / "clusterd"
    binary.rename(binary.with_name("real"))
    tools = folder / "tools"
    tools.mkdir()
    for path, line in [(binary, f'exec {QEMU} "$(dirname "$0")/real" "$@"'), (tools / "uname", f"echo {OTHER}")]:
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    launched = output(folder / "node_modules" / "clusterd" / "bin" / "clusterd", "--version", env=environment)
    assert launched == f"clusterd {VERSION}\n", launched


if not BINARY.exists():
    skip(f"no packages for {OTHER} are in {DIST.relative_to(ROOT)}: packaging/build --machine {OTHER} makes them")
    sys.exit(0)
tests = [a_static_file_of_that_machine, the_packages_hold_it]
if QEMU is None:
    skip(f"qemu-{OTHER} is missing (package qemu-user-static)")
else:
    tests += [it_runs, what_it_says_is_packed, its_launcher_finds_it]
for test in tests:
    test()
print(f"cross: {len(tests)} tests passed for {OTHER}")
