"""Root folders of other distributions, unpacked from Debian's packages: Debian 11, and musl with busybox as in Alpine.

apt brings them by name, with settings of its own, so this machine's are not touched. They are kept in WORK.
"""

import os
import shutil
import subprocess

from common import MACHINE, WORK

ARCH = {"x86_64": "amd64", "aarch64": "arm64"}[MACHINE]
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
MUSL = f"{MACHINE}-linux-musl"

SETTINGS = """\
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::State::lists "{folder}/lists";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}";
APT::Architecture "{arch}";
APT::Architectures {{ "{arch}"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
"""


def unpacked(release, packages):
    """A root of a release of Debian with these packages; None where they cannot be had."""
    folder = WORK / f"debian-{release}"
    root, done = folder / "root", folder / "done"
    if done.exists() and done.read_text() == " ".join(packages):
        return root
    shutil.rmtree(folder, ignore_errors=True)
    for part in ["lists/partial", "archives/partial"]:
        (folder / part).mkdir(parents=True)
    (folder / "status").touch()
    (folder / "sources.list").write_text(f"deb [signed-by={KEYS}] http://deb.debian.org/debian {release} main\n")
    (folder / "apt.conf").write_text(SETTINGS.format(folder=folder, arch=ARCH))
    env = {**os.environ, "APT_CONFIG": str(folder / "apt.conf"), "DEBIAN_FRONTEND": "noninteractive"}
    for words in [["update"], ["install", "-y", "--download-only", *packages]]:
        if subprocess.run(["apt-get", "-qq", *words], env=env, stdout=subprocess.DEVNULL, timeout=300).returncode != 0:
            return None
    root.mkdir()
    for package in sorted((folder / "archives").glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", package, root], check=True)
    for kind in ["passwd", "group"]:
        shutil.copy(root / "usr/share/base-passwd" / f"{kind}.master", root / "etc" / kind)
    done.write_text(" ".join(packages))
    return root


def debian_11():
    """Debian 11 with Python."""
    return unpacked("bullseye", ["base-files", "base-passwd", "dash", "coreutils", "libc-bin", "python3"])


def musl(source):
    """musl and busybox, and /worker of this source, linked with that musl."""
    root = unpacked("bookworm", ["base-passwd", "busybox-static", "musl", "musl-dev"])
    if root is None:
        return None
    library = root / "usr" / "lib" / MUSL
    worker = ["cc", "-O1", "-nostdinc", "-nostdlib", "-no-pie", "-fno-stack-protector", "-o", root / "worker"]
    worker += ["-isystem", root / "usr" / "include" / MUSL, library / "crt1.o", library / "crti.o", source]
    worker += ["-L", root / "lib" / MUSL, "-lc", library / "crtn.o", f"-Wl,-dynamic-linker,/lib/ld-musl-{MACHINE}.so.1"]
    subprocess.run(worker, check=True)
    if not (root / "bin" / "sh").exists():
        (root / "bin" / "sh").symlink_to("busybox")
    return root
