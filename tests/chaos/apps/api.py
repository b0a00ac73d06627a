"""The LISTEN_FDS app of the chaos run: answers as web.js does. SIGTERM lets it finish: requests under way are answered,
and kept connections are closed with their next answer."""
import json
import os
import signal
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VERSION = 0
leaving = threading.Event()


class Answer(BaseHTTPRequestHandler):
    """Answers every GET."""

    protocol_version = "HTTP/1.1"
    timeout = 10

    def do_GET(self):
        body = json.dumps({"pid": os.getpid(), "version": VERSION, "path": self.path}, separators=(",", ":")).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        if leaving.is_set():
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        if self.path == "/exit":
            os._exit(3)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    """Takes the socket that it was passed. Other workers accept from it too, so an accept may find nothing."""

    daemon_threads = False

    def __init__(self):
        super().__init__(("", 0), Answer, bind_and_activate=False)
        self.socket.close()
        self.socket = socket.socket(fileno=3)
        self.socket.setblocking(False)

    def handle_error(self, *_):
        pass


def main():
    server = Server()

    def leave(*_):
        leaving.set()
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, leave)
    name = os.environ["NOTIFY_SOCKET"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.sendto(b"READY=1", "\0" + name[1:] if name.startswith("@") else name)
    server.serve_forever(poll_interval=0.05)


main()
