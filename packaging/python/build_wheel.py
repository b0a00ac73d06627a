"""build_wheel.py VERSION BINARY OUT MACHINE: the wheel with the binary as a script, as other programs in Rust have it on PyPI.

A wheel is a zip with known files (PEP 427); nothing is compiled here. The same input gives the same bytes.
"""

import base64
import hashlib
import pathlib
import sys
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
# Static binaries run on every Linux; the tags name the oldest of each kind, so that installers of both take the file.
TAGS = {
    "x86_64": "py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.musllinux_1_1_x86_64",
    "aarch64": "py3-none-manylinux_2_17_aarch64.manylinux2014_aarch64.musllinux_1_1_aarch64",
}
EXECUTABLE = 0o755
PLAIN = 0o644


def metadata(version):
    return f"""Metadata-Version: 2.4
Name: clusterd
Version: {version}
Summary: Runs N copies of any program behind one listening socket and keeps them running.
License-Expression: MIT OR Apache-2.0
License-File: LICENSE-MIT
License-File: LICENSE-APACHE
Requires-Python: >=3.9
Classifier: Operating System :: POSIX :: Linux
Classifier: Programming Language :: Rust
Description-Content-Type: text/markdown

{(HERE / "README.md").read_text()}"""


def wheel_file(tag):
    python, abi, platforms = tag.split("-")
    tags = "".join(f"Tag: {python}-{abi}-{platform}\n" for platform in platforms.split("."))
    return f"Wheel-Version: 1.0\nGenerator: clusterd packaging\nRoot-Is-Purelib: false\n{tags}"


def contents(version, binary, tag):
    """Each file's name, content and mode."""
    info = f"clusterd-{version}.dist-info"
    for path in sorted((HERE / "clusterd").iterdir()):
        if path.suffix in (".py", ".pyi") or path.name == "py.typed":
            yield f"clusterd/{path.name}", path.read_bytes(), PLAIN
    yield f"clusterd-{version}.data/scripts/clusterd", binary.read_bytes(), EXECUTABLE
    for name in ("LICENSE-MIT", "LICENSE-APACHE"):
        yield f"{info}/licenses/{name}", (HERE.parents[1] / name).read_bytes(), PLAIN
    yield f"{info}/METADATA", metadata(version).encode(), PLAIN
    yield f"{info}/WHEEL", wheel_file(tag).encode(), PLAIN


def build(version, binary, out, machine):
    tag = TAGS[machine]
    path = out / f"clusterd-{version}-{tag}.whl"
    record = []

    def add(wheel, name, content, mode):
        entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
        entry.external_attr = (0o100000 | mode) << 16
        entry.compress_type = zipfile.ZIP_DEFLATED
        wheel.writestr(entry, content)

    with zipfile.ZipFile(path, "w") as wheel:
        for name, content, mode in contents(version, binary, tag):
            add(wheel, name, content, mode)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={digest},{len(content)}\n")
        name = f"clusterd-{version}.dist-info/RECORD"
        add(wheel, name, "".join([*record, f"{name},,\n"]).encode(), PLAIN)
    return path


if __name__ == "__main__":
    version, binary, out, machine = sys.argv[1:]
    print(build(version, pathlib.Path(binary), pathlib.Path(out), machine))
