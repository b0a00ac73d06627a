"""The wheel in a fresh virtual environment, and by pipx: the command, the library in a worker, messages of an agent, types."""

import json
import os
import subprocess
import sys
import venv

from common import VERSION, WORK, answer_of, fresh, free_port, running, skip, wheel

WORKER = '''
import json, sys
import clusterd

[listener] = clusterd.sockets()
assert clusterd.sockets()[0].getsockname() == listener.getsockname()
assert clusterd.status("waits for work")
assert clusterd.ready()
while True:
    client, _ = listener.accept()
    client.recv(4096)
    body = json.dumps([clusterd.is_clusterd, clusterd.app, clusterd.slot, clusterd.generation])
    client.sendall(f"HTTP/1.1 200 OK\\r\\nContent-Length: {len(body)}\\r\\nConnection: close\\r\\n\\r\\n{body}".encode())
    client.close()
'''

AGENT = '''
import clusterd

events = []
with clusterd.Channel() as channel:
    channel.ready()
    for said in channel:
        envelope = said.get("clusterd", {})
        if "event" in envelope:
            events.append(envelope["event"])
        elif "undelivered" in envelope:
            events.append(f"lost {envelope['id']}")
        elif isinstance(envelope.get("from"), dict):
            channel.send({"slot": 77}, "nobody", id=5)
            lost = channel.receive(timeout=30)["clusterd"]
            channel.send({"pid": envelope["from"]["pid"]}, ["the agent got: " + said["message"], events[0], lost["id"]])
'''

CHANNEL = '''
import json, os, socket, time
ours, theirs = socket.socketpair()
os.environ["NODE_CHANNEL_FD"] = str(theirs.fileno())
import clusterd

channel = clusterd.Channel()
for timeout in (0, 0.05):
    began = time.monotonic()
    try:
        channel.receive(timeout)
        raise SystemExit("something came out of nothing")
    except TimeoutError:
        assert time.monotonic() - began >= timeout
# Bytes that come one by one do not make the time longer.
ours.setblocking(True)
import threading
over = threading.Event()
def trickle():
    while not over.wait(0.01):
        ours.sendall(b" ")
thread = threading.Thread(target=trickle)
thread.start()
try:
    channel.receive(0.2)
    raise SystemExit("blanks are no message")
except TimeoutError:
    pass
finally:
    over.set()
    thread.join()
# Two in one piece, one in two, and what is for Node.
ours.sendall(b'{"a": 1}\\n{"cmd": "NODE_CLUSTER"}\\n{"b":')
assert channel.receive(5) == {"a": 1}
ours.sendall(b' 2}\\n"text"\\n')
assert [channel.receive(5), channel.receive(0)] == [{"b": 2}, "text"]
channel.send("all", "x")
assert json.loads(ours.recv(4096)) == {"clusterd": {"to": "all"}, "message": "x"}
ours.close()
assert list(channel) == []
channel.close()
print("passed")
'''

SCRIPT = '''
import os, sys
import clusterd

client = clusterd.Client(timeout=60)
if sys.argv[1] == "none":
    try:
        client.reload("web")
    except clusterd.ClusterdError as error:
        print(error.status, error)
    raise SystemExit
link = sys.argv[1]

def folders():
    return [(each["generation"], os.path.basename(each["folder"]), each["state"]) for each in client.releases("web")]

def refused(call):
    try:
        call()
    except clusterd.ClusterdError as error:
        return error.status, str(error)
    raise AssertionError("it was done")

[app] = client.apps()
assert (app["name"], app["status"], app["deployment"]) == ("web", "running", client.deployments()[0]["name"]), app
assert refused(lambda: client.rollback("web"))[0] == 409
assert refused(lambda: client.reload("wbe")) == (404, "there is no app wbe; there are: web")
os.unlink(link)
os.symlink("two", link)
assert client.reload("web")["ok"] is True
assert folders() == [(2, "two", "serving"), (1, "one", "served")], folders()
assert "back to generation 1" in client.rollback("web")["message"]
assert folders()[0][1:] == ("one", "serving"), folders()
assert "back to generation 2" in client.rollback("web", to=2)["message"]
with open(os.path.join(link, "worker.py"), "w") as file:
    file.write("raise SystemExit(\'it is broken\')")
try:
    client.reload("web")
    raise AssertionError("it was reloaded")
except clusterd.ClusterdError as error:
    assert error.status == 409 and "it is broken" in str(error.output), (error, error.output)
client.scale("web", "+1")
assert client.apps()[0]["workers_wanted"] == 2
client.stop("web")
assert client.apps()[0]["status"] == "stopped"
print("passed")
'''

TYPED = '''
import socket
import clusterd

listeners: list[socket.socket] = clusterd.sockets()
place: int = clusterd.slot or 0
told: bool = clusterd.ready() and clusterd.status(f"{clusterd.app}") and clusterd.notify("WATCHDOG=1")
path: str = clusterd.find_binary()
with clusterd.Channel() as channel:
    channel.send({"slot": place}, {"any": "thing"}, id="1")
    for said in channel:
        print(said)
client = clusterd.Client(home="/tmp", timeout=60)
generations: list[int] = [release["generation"] for release in client.releases("web")]
try:
    client.rollback("web", to=generations[0])
except clusterd.ClusterdError as error:
    status: int | None = error.status
client.scale("web", [])  # type: ignore[arg-type]
wrong: str = clusterd.slot  # type: ignore[assignment]
clusterd.Channel().send(7, "x")  # type: ignore[arg-type]
'''

ASKS = '''
const http = require('node:http');
http.createServer((request, response) => {
  process.once('message', (said) => response.end(JSON.stringify(said.message)));
  process.send({ clusterd: { to: 'agent' }, message: 'question' });
}).listen(process.env.PORT);
'''

package = wheel()
folder = fresh("wheel")
venv.create(folder / "venv", with_pip=True)
bin = folder / "venv" / "bin"
python = bin / "python"
subprocess.run([bin / "pip", "install", "--quiet", "--no-index", "--disable-pip-version-check", package], check=True)
home = folder / "home"
environment = {**os.environ, "CLUSTERD_HOME": str(home)}


def the_command_and_the_module_are_the_binary():
    for command in ([bin / "clusterd"], [python, "-m", "clusterd"]):
        said = subprocess.run([*command, "--version"], check=True, capture_output=True, text=True).stdout
        assert said == f"clusterd {VERSION}\n", said
    found = subprocess.run([python, "-c", "import clusterd; print(clusterd.find_binary())"], check=True,
                           capture_output=True, text=True).stdout.strip()
    assert found == str(bin / "clusterd"), found


def a_worker_has_its_socket_and_says_when_it_is_ready():
    (folder / "worker.py").write_text(WORKER)
    port = free_port()
    command = [bin / "clusterd", "-w", "2", "--port", port, "--protocol", "listen-fds", "--ready", "notify", "--name", "py",
               "--", python, folder / "worker.py"]
    with running(command, env=environment) as clusterd:
        shown = json.loads(answer_of(port, running=clusterd))
        assert shown[:2] == [True, "py"] and shown[2] in (0, 1) and shown[3] == 1, shown
        [deployment] = json.loads(subprocess.run([bin / "clusterd", "ls", "--json"], env=environment, check=True,
                                                 capture_output=True, text=True).stdout)
        notes = {worker["note"] for app in deployment["apps"] for worker in app["workers"] if worker["state"] == "ready"}
        assert notes == {"waits for work"}, deployment


def an_agent_answers_the_workers():
    (folder / "agent.py").write_text(AGENT)
    (folder / "asks.cjs").write_text(ASKS)
    port = free_port()
    (folder / "cluster.toml").write_text(f'''
[[app]]
name = "asks"
command = ["node", "{folder}/asks.cjs"]
workers = 1
listen = ["127.0.0.1:{port}"]
[app.agent]
command = ["{python}", "{folder}/agent.py"]
protocol = "node"
''')
    with running([bin / "clusterd", "-c", folder / "cluster.toml"], env=environment) as clusterd:
        said = json.loads(answer_of(port, running=clusterd))
        assert said == ["the agent got: question", "state", 5], said


def a_script_reloads_and_goes_back():
    """In a home of its own, with a folder for each release and a link to the current one."""
    place = folder / "scripted"
    for release in ("one", "two"):
        (place / release).mkdir(parents=True)
        (place / release / "worker.py").write_text(WORKER)
    link = place / "current"
    link.symlink_to("one")
    (place / "cluster.toml").write_text(f'''
[[app]]
name = "web"
command = ["{python}", "worker.py"]
cwd = "{link}"
workers = 1
protocol = "listen-fds"
ready = "notify"
listen = ["127.0.0.1:0"]
''')
    (place / "script.py").write_text(SCRIPT)
    own = {**os.environ, "CLUSTERD_HOME": str(place / "home")}
    said = subprocess.run([python, place / "script.py", "none"], env=own, check=True, capture_output=True, text=True).stdout
    assert said == f"404 no deployment runs in {place / 'home'}\n", said
    try:
        subprocess.run([bin / "clusterd", "start", place / "cluster.toml"], env=own, check=True, timeout=60)
        script = subprocess.run([python, place / "script.py", link], env=own, capture_output=True, text=True, timeout=120)
        assert (script.returncode, script.stdout) == (0, "passed\n"), script
    finally:
        subprocess.run([bin / "clusterd", "kill", "--now"], env=own, check=True, timeout=60)


def a_channel_waits_no_longer_than_it_is_asked_to():
    said = subprocess.run([python, "-c", CHANNEL], check=True, capture_output=True, text=True, timeout=60).stdout
    assert said == "passed\n", said


def tools(*names):
    """A Python with these packages of PyPI; None where they cannot be installed."""
    prefix = WORK / "-".join(("tools", *names))
    if not (prefix / "done").exists():
        venv.create(prefix, with_pip=True, clear=True)
        install = [prefix / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        if subprocess.run([*install, *names], timeout=300).returncode != 0:
            return None
        (prefix / "done").touch()
    return prefix / "bin" / "python"


def types_are_right():
    mypy = tools("mypy")
    if mypy is None:
        return skip("types: mypy cannot be installed")
    (folder / "typed.py").write_text(TYPED)
    for target in (["typed.py"], ["-p", "clusterd"]):
        command = [mypy, "-m", "mypy", "--strict", "--cache-dir", os.devnull, "--python-executable", python, *target]
        checked = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
        assert checked.returncode == 0, checked.stdout + checked.stderr
    print("types: right for mypy --strict", file=sys.stderr)


def pipx_runs_it():
    if sys.version_info < (3, 10):
        return skip("pipx needs Python 3.10")
    pipx = tools("pipx")
    if pipx is None:
        return skip("pipx cannot be installed")
    port = free_port()
    (folder / "page").mkdir()
    (folder / "page" / "index.html").write_text("served")
    places = {f"PIPX_{name}": str(folder / "pipx" / name) for name in ("HOME", "BIN_DIR", "MAN_DIR", "SHARED_LIBS")}
    command = [pipx, "-m", "pipx", "run", "--spec", package, "clusterd"]
    options = {"cwd": folder / "page", "env": {**environment, **places, "PIPX_DEFAULT_PYTHON": sys.executable}}
    said = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=300, **options)
    assert said.stdout == f"clusterd {VERSION}\n", said
    # pipx becomes clusterd: the signal that ends it does not leave one behind.
    serve = ["-w", "2", "--port", port, "--name", "pipx", "--", sys.executable, "-m", "http.server", port]
    with running([*command, *serve], **options) as clusterd:
        assert answer_of(port, running=clusterd) == "served"


def without_clusterd_nothing_happens():
    program = "import clusterd; print(clusterd.is_clusterd, clusterd.slot, clusterd.sockets(), clusterd.ready())"
    said = subprocess.run([python, "-c", program], check=True, capture_output=True, text=True,
                          env={"PATH": os.environ["PATH"]}).stdout
    assert said == "False None [] False\n", said


tests = [
    the_command_and_the_module_are_the_binary,
    a_worker_has_its_socket_and_says_when_it_is_ready,
    an_agent_answers_the_workers,
    a_script_reloads_and_goes_back,
    a_channel_waits_no_longer_than_it_is_asked_to,
    without_clusterd_nothing_happens,
    types_are_right,
    pipx_runs_it,
]
for test in tests:
    test()
print(f"wheel: {len(tests)} tests passed on Python {sys.version.split()[0]}")
