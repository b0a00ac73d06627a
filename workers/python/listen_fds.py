"""A plain web server that takes its listening socket the systemd way (LISTEN_FDS), says READY=1 and ends on SIGTERM
when the requests under way are answered. Standard library only; it knows nothing of clusterd."""
import json
import os
import signal
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hello(BaseHTTPRequestHandler):
    """Answers every GET with the pid that answers."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = json.dumps({"hello": "world", "pid": os.getpid()}).encode() + b"\n"
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def inherited_socket():
    """The first socket that was passed to this very process."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or int(os.environ.get("LISTEN_FDS", "0")) < 1:
        raise SystemExit("no socket was passed: run me under clusterd or systemd")
    return socket.socket(fileno=3)


def notify(message):
    """Tells whoever started us (sd_notify)."""
    name = os.environ.get("NOTIFY_SOCKET")
    if name:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.sendto(message.encode(), "\0" + name[1:] if name.startswith("@") else name)


def main():
    server = ThreadingHTTPServer(("", 0), Hello, bind_and_activate=False)
    server.socket.close()
    server.socket = inherited_socket()
    server.daemon_threads = False
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    notify("READY=1\nSTATUS=serving")
    server.serve_forever(poll_interval=0.05)
    server.server_close()


main()
