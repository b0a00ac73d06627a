"""The npm packages, installed from their tarballs into a fresh folder: node:test on each Node, and Bun."""

import os
import shutil
import subprocess
import sys

from common import DIST, MACHINE, ROOT, VERSION, WORK, built, fresh, skip

PLATFORM = {"x86_64": "linux-x64", "aarch64": "linux-arm64"}[MACHINE]
MAJORS = ["18", "20", "22", "24", "26"]
TEST_DEPS = ROOT / "target" / "test-deps" / "npm" / "node_modules"


def of_npm(path, package):
    """A path of the packages of the other tests, or of a package that is installed by name; None where it cannot be."""
    prefix = WORK / "packages" / path.split("/")[0]
    for modules in (TEST_DEPS, prefix / "node_modules"):
        if (modules / path).exists():
            return modules / path
    prefix.mkdir(parents=True, exist_ok=True)
    install = ["npm", "install", "--silent", "--no-save", "--no-audit", "--no-fund", "--prefix", prefix]
    found = prefix / "node_modules" / path
    installed = subprocess.run([*install, package], timeout=300).returncode == 0 and found.exists()
    return found if installed else None


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
    """TypeScript accepts what importers of each kind write, and knows what is wrong. No declarations but ours are needed."""
    compiler = of_npm("typescript/bin/tsc", "typescript@5")
    if compiler is None:
        return skip("types: typescript cannot be installed")
    common = ["--noEmit", "--strict", "--target", "es2022", "--lib", "es2022", "--typeRoots", "none"]
    modules = ["types.mts", "types.cts"]
    kinds = {
        "node10": ["--module", "commonjs", "--moduleResolution", "node10", "types.ts"],
        "node16": ["--module", "node16", "--moduleResolution", "node16", *modules],
        "nodenext": ["--module", "nodenext", "--moduleResolution", "nodenext", *modules],
        "bundler": ["--module", "esnext", "--moduleResolution", "bundler", "types.ts", "types.mts"],
    }
    for kind, options in kinds.items():
        checked = subprocess.run([compiler, *common, *options], cwd=folder, capture_output=True, text=True, timeout=120)
        assert checked.returncode == 0, f"moduleResolution {kind}:\n{checked.stdout}{checked.stderr}"
    print(f"types: right for {', '.join(kinds)}", file=sys.stderr)


def each_kind_of_import_finds_its_types():
    """What arethetypeswrong.github.io would say."""
    judge = of_npm("@arethetypeswrong/cli/dist/index.js", "@arethetypeswrong/cli@0.18")
    if judge is None:
        return skip("types: @arethetypeswrong/cli cannot be installed")
    node = of_npm("node22/bin/node", "node22@npm:node@22") or "node"
    command = [node, judge, "--no-color", "--no-emoji", DIST / f"clusterd-{VERSION}.tgz"]
    judged = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert judged.returncode == 0, judged.stdout + judged.stderr
    print("types: nothing is wrong for arethetypeswrong", file=sys.stderr)


def run_on(node, folder):
    """The tests on this Node, which is also that of the workers."""
    path = str(node.parent) if node else None
    # One file after the other: they start programs, and some wait for a moment in which nothing happens.
    for file in ("api.test.mjs", "events.test.mjs"):
        run(["node", "--test", file], folder, path)


folder = installed()
types_are_right(folder)
each_kind_of_import_finds_its_types()
websockets = of_npm("ws", "ws@8")
if websockets is None:
    skip("WebSockets: the package ws cannot be installed")
else:
    shutil.copytree(websockets, folder / "node_modules" / "ws", dirs_exist_ok=True)
for major in MAJORS:
    node = of_npm(f"node{major}/bin/node", f"node{major}@npm:node@{major}")
    if node is None:
        skip(f"Node {major} cannot be installed")
    else:
        run_on(node, folder)
bun = of_npm("@oven/bun-linux-x64/bin/bun", "@oven/bun-linux-x64") if MACHINE == "x86_64" else None
if bun is None:
    skip("Bun cannot be installed")
else:
    run([bun, "bun.mjs"], folder, None)
