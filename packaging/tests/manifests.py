"""Configuration files for other tools, each read by the tool itself or by a validator of its schemas; and what the files of Kubernetes
promise, by a clusterd that runs what they say."""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import venv

from common import BINARY, PATIENCE_S, ROOT, WORK, free_port, skip

PACKAGING = ROOT / "packaging"
KUBERNETES = ["1.30", "1.33"]
MODELS = ["@kubernetes-models/prometheus-operator@6", "typescript@5"]
passed = 0


def did(what):
    global passed
    passed += 1
    print(f"manifests: {what}", file=sys.stderr)


def run(command, **options):
    return subprocess.run([str(word) for word in command], check=True, timeout=120, **options)


def validators():
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


def parsed(python, program, *paths):
    """What a program that prints JSON makes of files."""
    return json.loads(run([python, "-c", program, *paths], capture_output=True, text=True).stdout)


VALIDATE = """
import json, sys, kubernetes_validate
for document in json.load(sys.stdin):
    kubernetes_validate.validate(document, sys.argv[1], strict=True)
"""
YAML = """
import json, sys, yaml
print(json.dumps([document for path in sys.argv[1:] for document in yaml.safe_load_all(open(path))]))
"""
HCL = """
import json, sys, hcl2
print(json.dumps([hcl2.load(open(path)) for path in sys.argv[1:]]))
"""


def is_valid(python, version, documents):
    checked = subprocess.run([python, "-c", VALIDATE, version], input=json.dumps(documents), capture_output=True, text=True)
    return checked.returncode == 0, checked.stderr


def kubernetes(python):
    """The documents by kind, valid for each version."""
    documents = parsed(python, YAML, *sorted(str(path) for path in (PACKAGING / "kubernetes").glob("*.yaml")))
    kinds = {document["kind"]: document for document in documents}
    assert len(kinds) == len(documents) == 5, sorted(kinds)
    own = [document for document in documents if document["kind"] != "ServiceMonitor"]
    for version in KUBERNETES:
        valid, why = is_valid(python, version, own)
        assert valid, f"Kubernetes {version}: {why}"
        did(f"valid for Kubernetes {version}: {', '.join(document['kind'] for document in own)}")
    for spoiled in own:
        valid, _ = is_valid(python, KUBERNETES[0], [{**spoiled, "specc": {}}])
        assert not valid, f"the validator takes anything as {spoiled['kind']}"
    return kinds


def service_monitor(document):
    """By the schema of the CRD, and, since that takes unknown fields, by the types that were made of it."""
    folder = WORK / "service-monitor"
    modules = folder / "node_modules"
    if not (folder / "done").exists():
        folder.mkdir(parents=True, exist_ok=True)
        install = ["npm", "install", "--silent", "--no-save", "--no-audit", "--no-fund", "--prefix", folder, *MODELS]
        if shutil.which("npm") is None or subprocess.run([str(word) for word in install], timeout=300).returncode != 0:
            return skip("the schema of the ServiceMonitor cannot be installed")
        (folder / "done").touch()
    module = "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor"
    validate = f"import {{ ServiceMonitor }} from '{module}';\nnew ServiceMonitor(JSON.parse(process.argv[2])).validate();\n"
    (folder / "validate.mjs").write_text(validate)
    tsc = [modules / "typescript" / "bin" / "tsc", "--noEmit", "--strict", "--skipLibCheck", "--target", "es2022"]
    tsc += ["--module", "node16", "--moduleResolution", "node16"]

    def schema(it):
        return subprocess.run(["node", "validate.mjs", json.dumps(it)], cwd=folder, capture_output=True, text=True)

    def types(it):
        typed = f"import type {{ IServiceMonitor }} from '{module}';\nexport const it: IServiceMonitor = {json.dumps(it)};\n"
        (folder / "monitor.mts").write_text(typed)
        return subprocess.run([*tsc, "monitor.mts"], cwd=folder, capture_output=True, text=True)

    for check in (schema, types):
        checked = check(document)
        assert checked.returncode == 0, checked.stdout + checked.stderr
    endpoint = document["spec"]["endpoints"][0]
    wrong = {**document, "spec": {**document["spec"], "endpoints": [{**endpoint, "path": 7}]}}
    unknown = {**document, "spec": {**document["spec"], "endpoints": [{**endpoint, "bearer": "x"}]}}
    assert schema(wrong).returncode != 0 and types(unknown).returncode != 0, "the validators take anything"
    return did("the ServiceMonitor is valid by its schema and its types")


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)(ms|s|m)", text).groups()
    return int(number) * {"ms": 0.001, "s": 1, "m": 60}[unit]


def what_belongs_together(kinds):
    """Names, ports and times of one file that others rely on."""
    deployment, service, monitor = kinds["Deployment"], kinds["Service"], kinds["ServiceMonitor"]
    pod = deployment["spec"]["template"]
    [container] = pod["spec"]["containers"]
    labels = pod["metadata"]["labels"].items()
    for selector in (
        deployment["spec"]["selector"]["matchLabels"],
        service["spec"]["selector"],
        kinds["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels, selector
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} == set(ports)
    [endpoint] = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    probes = {name: container[name]["httpGet"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert {name: get["path"] for name, get in probes.items()} == {
        "startupProbe": "/readyz",
        "readinessProbe": "/readyz",
        "livenessProbe": "/livez",
    }
    assert {get["port"] for get in probes.values()} == {"control"}

    text = kinds["ConfigMap"]["data"]["cluster.toml"]
    for name, port in ports.items():
        assert f'"0.0.0.0:{port}"' in text, f"{name} is another port in cluster.toml"
    times = {key: seconds(value) for key, value in re.findall(r'^(drain_delay|drain_timeout|kill_timeout) = "(.*)"', text, re.M)}
    assert sum(times.values()) < pod["spec"]["terminationGracePeriodSeconds"], times
    readiness = container["readinessProbe"]
    assert readiness["periodSeconds"] * readiness["failureThreshold"] + readiness["timeoutSeconds"] < times["drain_delay"]

    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert set(volumes) == set(mounts)
    assert volumes["config"]["configMap"]["name"] == kinds["ConfigMap"]["metadata"]["name"]
    secret = endpoint["authorization"]["credentials"]
    assert secret["name"] == volumes["token"]["secret"]["secretName"]
    assert f'read_token_file = "{mounts["token"]}/{secret["key"]}"' in text
    assert container["command"] == ["clusterd", "-c", f"{mounts['config']}/cluster.toml"]
    assert kinds["PodDisruptionBudget"]["spec"]["maxUnavailable"] < deployment["spec"]["replicas"]
    did("ports, names and times of the files of Kubernetes fit together")
    return container, text, pod["spec"]


APP = "require('node:http').createServer((request, response) => response.end('served')).listen(process.env.PORT)"


def status_of(address, port, path, token=None):
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    request = urllib.request.Request(f"http://{address}:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return type(error).__name__, str(error)


def wait_for(what, holds):
    until = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < until, f"this did not come: {what}"
        time.sleep(0.05)


def a_pod(container, text, pod):
    """A clusterd with the file of the ConfigMap: probes as a kubelet makes them, a scrape, and the end of the pod. Where this is root, its
    user is that of the pod, and the token belongs to root and its group, as fsGroup has it."""
    binary = os.environ.get("CLUSTERD_BINARY") or BINARY
    if not os.access(binary, os.X_OK):
        return skip("there is no clusterd for what the pod says; run packaging/build binary first")
    # A place that any user can reach.
    with tempfile.TemporaryDirectory(prefix="clusterd-pod-") as place:
        return run_pod(pathlib.Path(place), shutil.copy(binary, place), container, text, pod)


def run_pod(folder, binary, container, text, pod):
    (folder / "app.js").write_text(APP)
    (folder / "token").write_text("0123456789abcdef0123456789abcdef")
    (folder / "token").chmod(0o600)
    user = {}
    if os.geteuid() == 0:
        uid, gid, group = (pod["securityContext"][key] for key in ("runAsUser", "runAsGroup", "fsGroup"))
        user = {"user": uid, "group": gid, "extra_groups": [group]}
        os.chown(folder / "token", 0, group)
        [volume] = [volume for volume in pod["volumes"] if "secret" in volume]
        (folder / "token").chmod(volume["secret"]["defaultMode"])
        os.chown(folder, uid, gid)
    http, control = free_port(), free_port()
    replaced = {
        "/run/clusterd/": f"{folder}/",
        "/etc/clusterd-token/": f"{folder}/",
        "/app/app.js": f"{folder}/app.js",
        "0.0.0.0:8080": f"0.0.0.0:{http}",
        "0.0.0.0:9615": f"0.0.0.0:{control}",
        # CI is short.
        'drain_delay = "10s"': 'drain_delay = "2s"',
        'workers = "max"': "workers = 2",
    }
    for ours, here in replaced.items():
        assert ours in text, ours
        text = text.replace(ours, here)
    (folder / "cluster.toml").write_text(text)
    # Not a loopback address, as that of a pod.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route:
        try:
            route.connect(("192.0.2.1", 9))
            address = route.getsockname()[0]
        except OSError:
            return skip("this machine has no address but loopback")
    probes = {name: container[name]["httpGet"]["path"] for name in ("readinessProbe", "livenessProbe")}
    environment = {**os.environ, "CLUSTERD_HOME": str(folder / "home")}
    with open(folder / "log", "ab") as log:
        if user:
            # As runtimes do with what becomes the stdout of a container's user, who opens /dev/stdout.
            os.fchown(log.fileno(), user["user"], user["group"])
        command = [binary, "-c", folder / "cluster.toml"]
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log, **user)
    try:
        ready = lambda: status_of(address, control, probes["readinessProbe"])[0]  # noqa: E731
        wait_for("readiness", lambda: ready() == 200 or process.poll() is not None)
        assert process.poll() is None, (folder / "log").read_text()
        assert status_of(address, control, probes["livenessProbe"])[0] == 200
        status, metrics = status_of(address, control, "/metrics", (folder / "token").read_text())
        assert status == 200 and "clusterd_" in metrics, (status, metrics[:200])
        assert status_of(address, control, "/metrics")[0] == 401
        # What preStop hooks are for: the pod says that it is not ready, and serves on.
        process.send_signal(signal.SIGTERM)
        wait_for("503", lambda: ready() == 503)
        assert status_of(address, http, "/") == (200, "served")
        assert process.wait(PATIENCE_S) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    return did("probes, metrics and the end of a pod are as the files say")


def hcl(python):
    """Nomad's and Consul's files."""
    nomad, consul = parsed(python, HCL, str(PACKAGING / "nomad" / "web.nomad.hcl"), str(PACKAGING / "consul" / "web.hcl"))
    text = json.dumps(nomad)
    for word in ("shutdown_delay", "kill_timeout", "health_check", "${NOMAD_PORT_http}"):
        assert word in text, f"{word} is missing in {text}"
    assert len(re.findall('"interval"', json.dumps(consul))) == 2, consul
    broken = WORK / "broken.hcl"
    broken.write_text((PACKAGING / "consul" / "web.hcl").read_text().rstrip().removesuffix("}"))
    refused = subprocess.run([python, "-c", HCL, broken], capture_output=True)
    assert refused.returncode != 0, "the parser takes anything"
    did("Nomad's and Consul's files are HCL")


python = validators()
if python is None:
    skip("the validators cannot be installed")
else:
    kinds = kubernetes(python)
    service_monitor(kinds["ServiceMonitor"])
    a_pod(*what_belongs_together(kinds))
    hcl(python)
if shutil.which("haproxy"):
    run(["haproxy", "-c", "-f", PACKAGING / "haproxy" / "haproxy.cfg"])
    did("HAProxy takes its file")
else:
    skip("haproxy is not installed")
if shutil.which("docker") and subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0:
    run(["docker", "compose", "-f", PACKAGING / "docker" / "compose.yaml", "config", "--quiet"])
    did("docker compose takes its file")
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
    did("systemd takes its units")
else:
    skip("systemd-analyze is not installed")
print(f"manifests: {passed} checks passed", file=sys.stderr)
