"""The npm packages, installed from their tarballs into a fresh folder: node:test on each Node, and Bun."""

import os
import shutil
import subprocess

from common import DIST, MACHINE, ROOT, VERSION, WORK, built, fresh, skip

PLATFORM = {"x86_64": "linux-x64", "aarch64": "linux-arm64"}[MACHINE]
# The oldest and the newest Node, besides the one in PATH.
MAJORS = ["18", "26"]
TEST_DEPS = ROOT / "target" / "test-deps" / "npm" / "node_modules"


def node_of(major):
    """A Node of this version: that of the other tests, or one that is installed by name."""
    for modules in (TEST_DEPS, WORK / "nodes" / "node_modules"):
        if (modules / f"node{major}" / "bin" / "node").exists():
            return modules / f"node{major}" / "bin"
    prefix = WORK / "nodes"
    prefix.mkdir(parents=True, exist_ok=True)
    name = f"node{major}@npm:node@{major}"
    done = subprocess.run(["npm", "install", "--silent", "--no-save", "--prefix", prefix, name], timeout=300)
    if done.returncode != 0:
        return None
    return prefix / "node_modules" / f"node{major}" / "bin"


def installed():
    """A folder with the packages and the files of the tests."""
    folder = fresh("npm")
    packages = [built(DIST / f"clusterd-{VERSION}.tgz"), built(DIST / f"clusterd-{PLATFORM}-{VERSION}.tgz")]
    (folder / "package.json").write_text('{"name": "t", "version": "1.0.0", "private": true}\n')
    # Offline: the packages have no dependencies but each other.
    install = ["npm", "install", "--offline", "--no-audit", "--no-fund", "--silent", *packages]
    subprocess.run(install, cwd=folder, check=True, timeout=120)
    for file in (ROOT / "packaging" / "npm" / "test").iterdir():
        shutil.copy(file, folder)
    return folder


def run(command, folder, path):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CLUSTERD")}
    environment["PATH"] = f"{path}:{environment['PATH']}" if path else environment["PATH"]
    subprocess.run(command, cwd=folder, env=environment, check=True, timeout=300)


def types_are_right(folder):
    compiler = WORK / "typescript"
    if not (compiler / "node_modules" / ".bin" / "tsc").exists():
        compiler.mkdir(parents=True, exist_ok=True)
        packages = ["typescript@5", "@types/node@20"]
        done = subprocess.run(["npm", "install", "--silent", "--no-save", "--prefix", compiler, *packages], timeout=300)
        if done.returncode != 0:
            return skip("types: typescript cannot be installed")
    options = ["--noEmit", "--strict", "--module", "nodenext", "--target", "es2022", "--typeRoots"]
    types = compiler / "node_modules" / "@types"
    tsc = [compiler / "node_modules" / ".bin" / "tsc", *options, types, "--types", "node"]
    subprocess.run([*tsc, "types.mts", "types.cts"], cwd=folder, check=True, timeout=120)


folder = installed()
types_are_right(folder)
run(["node", "--test", "api.test.mjs"], folder, None)
for major in MAJORS:
    path = node_of(major)
    if path is None:
        skip(f"Node {major} cannot be installed")
    else:
        run(["node", "--test", "api.test.mjs"], folder, path)
bun = TEST_DEPS / "@oven" / "bun-linux-x64" / "bin"
if (bun / "bun").exists():
    run([bun / "bun", "bun.mjs"], folder, None)
else:
    skip("Bun is not installed")
