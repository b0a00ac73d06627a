"""The static binary: its size, that it needs nothing, and that it serves in an empty root, as another user too."""

import json
import os
import subprocess
import sys

import distributions
from common import BINARY, answer_of, built, free_port, fresh, running, skip

# What it should have at most, and what it may have: packaging/README.md says what makes its size.
BYTES_GOAL = 10_000_000
BYTES_MAX = 10_500_000
SOURCE = os.path.join(os.path.dirname(__file__), "worker.c")


def a_root(name, files):
    """A root folder with clusterd, a static worker and these files."""
    root = fresh(name)
    os.link(built(BINARY), root / "clusterd")
    subprocess.run(["cc", "-static", "-O1", "-o", root / "worker", SOURCE], check=True)
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def in_root(root, *arguments):
    """clusterd in this root, with what the kernel provides: /proc and /dev. A container has these too."""
    script = """
        set -e
        root=$1
        shift
        mount --make-rprivate /
        mkdir -p "$root/proc" "$root/dev"
        mount --rbind /proc "$root/proc"
        mount --rbind /dev "$root/dev"
        exec env -i "$(command -v chroot)" "$root" /clusterd "$@"
    """
    return ["unshare", "--mount", "sh", "-c", script, "sh", root, *arguments]


def serves(root, *options, command=("/worker",)):
    """The first answer of a worker in this root."""
    port = free_port()
    words = [str(port) if word == "PORT" else word for word in command]
    with running(in_root(root, "-w", "2", "--port", port, *options, "--", *words)) as clusterd:
        return answer_of(port, running=clusterd)


def small_and_static():
    size = built(BINARY).stat().st_size
    assert size < BYTES_MAX, f"{size} bytes"
    if size > BYTES_GOAL:
        print(f"MISSED: the binary has {size} bytes, and should have {BYTES_GOAL}", file=sys.stderr)
    headers = subprocess.run(["readelf", "-lW", BINARY], check=True, capture_output=True, text=True).stdout
    assert "INTERP" not in headers, "it wants a loader"
    sections = subprocess.run(["readelf", "-SW", BINARY], check=True, capture_output=True, text=True).stdout
    assert ".debug_info" not in sections and ".symtab" not in sections, "it is not stripped"
    assert ".gnu_debuglink" in sections, "it does not name its debug file"
    debug = built(BINARY.with_name(BINARY.name + ".debug"))
    sections = subprocess.run(["readelf", "-SW", debug], check=True, capture_output=True, text=True).stdout
    assert ".debug_line" in sections, "the debug file has no lines"


def an_empty_root():
    answer = serves(a_root("empty-root", {}))
    assert answer.startswith("uid 0 gid 0"), answer


def a_user_by_name():
    files = {
        "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nweb:x:4711:4712:Web:/srv:/bin/sh\n",
        "etc/group": "root:x:0:\nweb:x:4712:\nlogs:x:4713:other,web\n",
        # A source that a static binary cannot load.
        "etc/nsswitch.conf": "passwd: nosuchmodule systemd files\ngroup: nosuchmodule systemd files\n",
    }
    root = a_root("user-root", files)
    answer = serves(root, "--user", "web")
    assert answer == "uid 4711 gid 4712 groups 4712 4713", answer
    answer = serves(root, "--user", "web", "--group", "logs")
    assert answer.startswith("uid 4711 gid 4713"), answer
    failed = subprocess.run(in_root(root, "--user", "nobody", "--", "/worker"), capture_output=True, text=True)
    assert failed.returncode == 1 and 'no user "nobody"' in failed.stderr, failed


def a_host_by_name():
    files = {
        "etc/hosts": "127.0.0.1 localhost here.test\n",
        "etc/nsswitch.conf": "hosts: nosuchmodule mymachines files resolve\n",
    }
    serves(a_root("host-root", files), "--host", "here.test")


def with_binary(root):
    """This root, with clusterd in it; it is kept, and the binary is that of today."""
    (root / "clusterd").unlink(missing_ok=True)
    os.link(built(BINARY), root / "clusterd")
    return root


def debian_11():
    root = distributions.debian_11()
    if root is None:
        skip("the packages of Debian 11 cannot be had")
        return
    (root / "srv").mkdir(exist_ok=True)
    (root / "srv" / "served").touch()
    web = ("/usr/bin/python3", "-m", "http.server", "--directory", "/srv", "PORT")
    answer = serves(with_binary(root), "--protocol", "bind", "--user", "www-data", command=web)
    assert "served" in answer, answer


def musl_and_busybox():
    root = distributions.musl(SOURCE)
    if root is None:
        skip("musl and busybox cannot be had")
        return
    answer = serves(with_binary(root), "--user", "nobody", command=("/bin/sh", "-c", "exec /worker"))
    assert answer.startswith("uid 65534 gid 65534"), answer


def read_only_and_not_root():
    """As a strict container runs it: nothing can be written, nobody is root, JSON on stdout."""
    root = a_root("strict-root", {"etc/passwd": "web:x:4711:4712::/:/bin/sh\n"})
    script = """
        set -e
        root=$1
        shift
        mount --make-rprivate /
        mkdir -p "$root/proc" "$root/dev"
        mount --bind "$root" "$root"
        mount --rbind /proc "$root/proc"
        mount --rbind /dev "$root/dev"
        mount -o remount,bind,ro "$root"
        exec env -i "$(command -v setpriv)" --no-new-privs \\
          "$(command -v chroot)" --userspec=4711:4712 --groups= "$root" /clusterd "$@"
    """
    port = free_port()
    command = ["unshare", "--mount", "sh", "-c", script, "sh", root, "-w", "2", "--port", port, "--log-format", "json"]
    command += ["--log", "/dev/stdout", "--", "/worker"]
    ours, theirs = os.pipe()
    # As runc does for a container's user.
    os.fchown(theirs, 4711, 4712)
    with running(command, stdout=theirs) as clusterd, os.fdopen(ours) as lines:
        os.close(theirs)
        answer = answer_of(port, running=clusterd)
        line = json.loads(lines.readline())
    assert answer == "uid 4711 gid 4712 groups", answer
    assert (line["app_name"], line["message"]) == ("worker", "listening"), line


tests = [small_and_static]
if os.getuid() == 0:
    tests += [an_empty_root, a_user_by_name, a_host_by_name, debian_11, musl_and_busybox, read_only_and_not_root]
else:
    skip("chroot needs root")
for test in tests:
    test()
print(f"binary: {len(tests)} tests passed")
