"""The wheel in a fresh virtual environment: the command, the library in a worker, messages of an agent."""

import json
import os
import subprocess
import sys
import venv

from common import DIST, VERSION, answer_of, fresh, free_port, running

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

channel = clusterd.Channel()
channel.ready()
while True:
    try:
        said = channel.receive()
    except clusterd.ChannelClosed:
        break
    sender = said.get("clusterd", {}).get("from")
    if isinstance(sender, dict):
        channel.send({"pid": sender["pid"]}, "the agent got: " + said["message"])
'''

ASKS = '''
const http = require('node:http');
http.createServer((request, response) => {
  process.once('message', (said) => response.end(said.message));
  process.send({ clusterd: { to: 'agent' }, message: 'question' });
}).listen(process.env.PORT);
'''

[wheel] = DIST.glob(f"clusterd-{VERSION}-*.whl")
folder = fresh("wheel")
venv.create(folder / "venv", with_pip=True)
bin = folder / "venv" / "bin"
python = bin / "python"
subprocess.run([bin / "pip", "install", "--quiet", "--no-index", "--disable-pip-version-check", wheel], check=True)
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
        said = answer_of(port, running=clusterd)
        assert said == "the agent got: question", said


def without_clusterd_nothing_happens():
    program = "import clusterd; print(clusterd.is_clusterd, clusterd.slot, clusterd.sockets(), clusterd.ready())"
    said = subprocess.run([python, "-c", program], check=True, capture_output=True, text=True,
                          env={"PATH": os.environ["PATH"]}).stdout
    assert said == "False None [] False\n", said


the_command_and_the_module_are_the_binary()
a_worker_has_its_socket_and_says_when_it_is_ready()
an_agent_answers_the_workers()
without_clusterd_nothing_happens()
print(f"wheel: 4 tests passed on Python {sys.version.split()[0]}")
