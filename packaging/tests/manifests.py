"""Configuration files for other tools, each read by the tool itself or by a validator of its schemas."""

import pathlib
import shutil
import subprocess
import sys
import venv

from common import ROOT, WORK, skip

PACKAGING = ROOT / "packaging"
KUBERNETES = ["1.30", "1.33"]


def environment():
    """A Python with the validators, or None where they cannot be installed."""
    folder = WORK / "validators"
    python = folder / "bin" / "python"
    if not (folder / "done").exists():
        venv.create(folder, with_pip=True, clear=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        done = subprocess.run([*install, "kubernetes-validate", "pyyaml", "python-hcl2"], timeout=300)
        if done.returncode != 0:
            return None
        (folder / "done").touch()
    return python


VALIDATE = """
import sys, yaml, kubernetes_validate
for path in sys.argv[2:]:
    for document in yaml.safe_load_all(open(path)):
        kubernetes_validate.validate(document, sys.argv[1], strict=True)
        print("valid for Kubernetes", sys.argv[1] + ":", path, document["kind"])
"""

REFUSE = """
import sys, yaml, kubernetes_validate
document = yaml.safe_load(open(sys.argv[1]))
document["spec"]["replicaz"] = 3
try:
    kubernetes_validate.validate(document, "1.30", strict=True)
except kubernetes_validate.ValidationError:
    sys.exit(0)
sys.exit("the validator takes anything")
"""

HCL = """
import sys, hcl2
for path in sys.argv[1:]:
    assert hcl2.load(open(path)), path
    print("parses:", path)
"""

passed = 0


def run(command):
    global passed
    subprocess.run([str(word) for word in command], check=True, timeout=120)
    passed += 1


python = environment()
if python is None:
    skip("the validators cannot be installed")
else:
    files = sorted(str(path) for path in (PACKAGING / "kubernetes").glob("*.yaml"))
    for version in KUBERNETES:
        run([python, "-c", VALIDATE, version, *files])
    run([python, "-c", REFUSE, PACKAGING / "kubernetes" / "deployment.yaml"])
    run([python, "-c", HCL, PACKAGING / "nomad" / "web.nomad.hcl", PACKAGING / "consul" / "web.hcl"])
if shutil.which("haproxy"):
    run(["haproxy", "-c", "-f", PACKAGING / "haproxy" / "haproxy.cfg"])
else:
    skip("haproxy is not installed")
if shutil.which("docker") and subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0:
    run(["docker", "compose", "-f", PACKAGING / "docker" / "compose.yaml", "config", "--quiet"])
else:
    skip("docker compose is not installed")
if shutil.which("systemd-analyze"):
    # In a folder of its own, where the programs that units name exist.
    units = sorted(path for path in (PACKAGING / "systemd").iterdir())
    folder = pathlib.Path(WORK / "units")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for unit in units:
        text = unit.read_text().replace("/usr/bin/clusterd", "/bin/true")
        (folder / unit.name.replace("clusterd@.service", "clusterd@web.service")).write_text(text)
    said = subprocess.run(["systemd-analyze", "verify", "--man=no", *sorted(folder.iterdir())], capture_output=True, text=True)
    # systemd before 254 ignores DelegateSubgroup.
    wrong = [line for line in said.stderr.splitlines() if str(folder) in line and "DelegateSubgroup" not in line]
    assert not wrong and said.returncode == 0, said.stderr
    passed += 1
else:
    skip("systemd-analyze is not installed")
print(f"manifests: {passed} tests passed", file=sys.stderr)
