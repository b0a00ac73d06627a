"""The static binary: its size, that it needs nothing, and that it serves in an empty root, as another user too."""

import os
import subprocess

from common import BINARY, answer_of, built, free_port, fresh, running, skip

BYTES_MAX = 10_000_000


def a_root(name, files):
    """A root folder with clusterd, a static worker and these files."""
    root = fresh(name)
    os.link(built(BINARY), root / "clusterd")
    worker = root / "worker"
    source = os.path.join(os.path.dirname(__file__), "worker.c")
    subprocess.run(["cc", "-static", "-O1", "-o", worker, source], check=True)
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


def serves(root, *options):
    """The first answer of a worker in this root."""
    port = free_port()
    command = in_root(root, "-w", "2", "--port", port, *options, "--", "/worker")
    with running(command) as clusterd:
        return answer_of(port, running=clusterd)


def small_and_static():
    size = built(BINARY).stat().st_size
    assert size < BYTES_MAX, f"{size} bytes"
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


small_and_static()
if os.getuid() == 0:
    an_empty_root()
    a_user_by_name()
    a_host_by_name()
else:
    skip("chroot needs root")
print("binary: 4 tests passed" if os.getuid() == 0 else "binary: 1 test passed")
