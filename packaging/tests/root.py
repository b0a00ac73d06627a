"""A root folder over that of this machine, in a mount namespace of its own: what is changed in it is lost."""

import os
import subprocess

from common import PATIENCE_S, fresh


class Root:
    """Entered if `entered`; else this machine lacks overlayfs or the rights."""

    def __init__(self, name, unshare=("-m",), then=f"exec sleep {PATIENCE_S * 10}"):
        self.folder = fresh(name)
        (self.folder / "merged").mkdir()
        script = f"""
            set -e
            mount --make-rprivate /
            cd {self.folder}
            mount -t tmpfs -o mode=755 tmpfs merged
            mkdir merged/upper merged/work merged/root
            mount -t overlay overlay -o lowerdir=/,upperdir=merged/upper,workdir=merged/work merged/root
            mount --rbind /dev merged/root/dev
            mount -t proc proc merged/root/proc || mount --rbind /proc merged/root/proc
            mount -t tmpfs -o mode=755 tmpfs merged/root/run
            mount -t tmpfs -o mode=1777 tmpfs merged/root/tmp
            echo entered
            {then}
        """
        command = ["unshare", *unshare, "sh", "-c", script]
        self.holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.entered = self.holder.stdout.readline() == "entered\n"
        self.flags = ["-m"]

    def inside(self):
        """The pid of the process that has the namespaces: of `unshare --fork` it is the child."""
        children = open(f"/proc/{self.holder.pid}/task/{self.holder.pid}/children").read().split()
        return children[0] if "--fork" in self.holder.args else str(self.holder.pid)

    def run(self, *words, check=True):
        root = str(self.folder / "merged" / "root")
        command = ["nsenter", *self.flags, "-t", self.inside(), "chroot", root, *map(str, words)]
        environment = {"PATH": os.environ["PATH"], "HOME": "/root", "DEBIAN_FRONTEND": "noninteractive"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S * 2)
        assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done

    def write(self, path, text):
        self.run("sh", "-c", f"mkdir -p $(dirname {path}) && cat > {path} <<'END'\n{text}END\n")

    def close(self):
        self.holder.kill()
        self.holder.wait()
