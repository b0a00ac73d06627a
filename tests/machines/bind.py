"""Programs that bind their port by themselves, on two workers: requests, a reload, killed workers and masters, an upgrade.
Waits as long as an emulated machine takes: what the tests of the project allow is too short on a busy host."""
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

CLUSTERD = os.environ["CLUSTERD"]
PORT = 8080
PATIENCE_SECONDS = 400
CLIENT_SECONDS = 120
LOAD_CLIENTS = 2

C = r"""
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>
int main(void) {
    int s = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(8080) };
    if (bind(s, (void *)&a, sizeof a) || listen(s, 16)) { perror("listen"); return 1; }
    for (;;) {
        char b[4096], out[128];
        int c = accept(s, 0, 0);
        if (c < 0) return 2;
        if (read(c, b, sizeof b) > 0 && write(c, out, sprintf(out, "HTTP/1.0 200 OK\r\n\r\npid=%d", getpid())) < 0) return 3;
        close(c);
    }
}
"""
NODE = "require('node:http').createServer((q, s) => { s.setHeader('Connection', 'close'); s.end(`pid=${process.pid}`) }).listen(8080)"


def ask():
    """What is answered, or how it failed."""
    try:
        with socket.create_connection(("127.0.0.1", PORT), timeout=CLIENT_SECONDS) as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b""
            while part := client.recv(4096):
                answer += part
        return answer.decode() or "cut"
    except ConnectionRefusedError:
        return "refused"
    except TimeoutError:
        return "hung"
    except OSError:
        return "cut"


class Load:
    """Clients that ask again and again."""

    def __init__(self):
        self.seen, self.failed, self.ends = [], [], False
        self.threads = [threading.Thread(target=self.client) for _ in range(LOAD_CLIENTS)]
        for thread in self.threads:
            thread.start()

    def client(self):
        while not self.ends:
            answer = ask()
            (self.seen if "200 OK" in answer else self.failed).append(answer)

    def more(self, count=20):
        wanted = len(self.seen) + count
        wait("more answers", lambda: len(self.seen) >= wanted)

    def finish(self):
        self.more()
        self.ends = True
        for thread in self.threads:
            thread.join()
        return f"{len(self.seen)} answers, failed: {self.failed}"


def wait(what, holds):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := holds()):
        assert time.monotonic() < deadline, f"{what} did not come true"
        time.sleep(0.2)
    return found


class Cluster:
    """A clusterd in a folder of its own."""

    def __init__(self, options, command):
        self.folder = tempfile.mkdtemp()
        self.env = dict(os.environ, CLUSTERD_HOME=f"{self.folder}/home")
        self.log = open(f"{self.folder}/log", "w+")
        words = [CLUSTERD, "-w", "2", "--port", str(PORT), "--ready-timeout", "300s", *options, "--", *command]
        self.keeper = subprocess.Popen(words, cwd=self.folder, env=self.env, stdout=self.log, stderr=self.log)
        wait("2 ready workers", lambda: self.app() and self.app()["workers_ready"] == 2)

    def view(self):
        done = subprocess.run([CLUSTERD, "ls", "--json"], env=self.env, capture_output=True, text=True)
        found = json.loads(done.stdout) if done.returncode == 0 and done.stdout else []
        return found[0] if found and found[0].get("apps") else None

    def app(self):
        view = self.view()
        return view and view["apps"][0]

    def pids(self):
        return [worker["pid"] for worker in self.app()["workers"]]

    def run(self, *words):
        done = subprocess.run([CLUSTERD, *words], env=self.env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def said(self):
        with open(f"{self.folder}/log") as file:
            return file.read()

    def end(self):
        self.keeper.send_signal(signal.SIGTERM)
        assert self.keeper.wait(PATIENCE_SECONDS) == 0, self.said()


def program(name, options, command, balance):
    """A program, through everything. Yields what came of it."""
    cluster = Cluster(["-b", balance, *options], command)
    try:
        app = cluster.app()
        assert app["protocol"] == "bind", app["protocol"]
        load = Load()
        load.more(40)
        yield "requests", load.finish() + f", balance {app['balance']}"
        assert not load.failed
        if any("pid=" in answer for answer in load.seen):
            answered = {int(answer.rsplit("pid=")[-1]) for answer in load.seen}
            assert answered == set(cluster.pids()), f"both workers answer: {answered} {cluster.pids()}"

        load = Load()
        load.more()
        before = cluster.pids()
        cluster.run("reload", "all")
        seen = load.finish()
        yield "a reload under load", seen
        refused = [answer for answer in load.failed if answer != "cut"]
        assert not refused and not set(before) & set(cluster.pids())

        victim = cluster.pids()[0]
        os.kill(victim, signal.SIGSTOP)
        load = Load()
        time.sleep(2)
        os.kill(victim, signal.SIGKILL)
        wait("a replacement", lambda: (app := cluster.app()) and app["workers_ready"] == 2 and victim not in cluster.pids())
        yield "a killed worker", load.finish()
        assert "refused" not in load.failed and "hung" not in load.failed

        load = Load()
        load.more()
        master = cluster.view()["master_pid"]
        os.kill(master, signal.SIGKILL)
        wait("another master", lambda: (view := cluster.view()) and view["master_pid"] != master)
        yield "a killed master", load.finish()
        assert not load.failed

        load, before = Load(), cluster.pids()
        load.more()
        cluster.run("upgrade")
        yield "an upgrade", load.finish()
        assert not load.failed and cluster.pids() == before
    except AssertionError:
        print(cluster.said())
        cluster.keeper.kill()
        raise
    cluster.end()


def main():
    folder = tempfile.mkdtemp()
    with open(f"{folder}/server.c", "w") as file:
        file.write(C)
    subprocess.run(["gcc", "-static", "-o", f"{folder}/server", f"{folder}/server.c"], check=True)
    with open(f"{folder}/app.js", "w") as file:
        file.write(NODE)
    failed = 0
    for name, options, command, balance in [
        ("a static program in C", [], [f"{folder}/server"], "kernel"),
        ("python3 -m http.server", [], ["python3", "-m", "http.server", str(PORT)], "kernel"),
        ("a static program in C", [], [f"{folder}/server"], "shared"),
        ("node", ["--protocol", "bind"], ["env", "X=1", "node", f"{folder}/app.js"], "kernel"),
    ]:
        try:
            for what, seen in program(name, options, command, balance):
                print(f"ok: {name}: {what}: {seen}", flush=True)
        except AssertionError as error:
            failed = 1
            print(f"FAILED: {name}: {error}", flush=True)
    return failed


sys.exit(main())
