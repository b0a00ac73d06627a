"""Messages between an agent that is a Python program and the workers of its app, over the channel of clusterd.

In the configuration, `[app.agent]` has `protocol = "node"`.
"""

import json
import os
import socket

#: A line may not be longer, in bytes: clusterd passes on messages of at most 1 MiB.
LINE_BYTES_MAX = 2 << 20


class ChannelClosed(Exception):
    """clusterd has closed the channel: this process shall end."""


class Channel:
    """The agent's end of its channel. Use it from one thread, or with a lock."""

    def __init__(self):
        number = os.environ.get("NODE_CHANNEL_FD")
        if number is None:
            raise RuntimeError('this process has no channel: [app.agent] needs protocol = "node"')
        os.set_inheritable(int(number), False)
        self._socket = socket.socket(fileno=os.dup(int(number)))
        self._socket.setblocking(True)
        self._rest = b""

    def fileno(self):
        """For select and the event loops."""
        return self._socket.fileno()

    def ready(self):
        """The agent is ready: workers may start."""
        self._write("ready")

    def send(self, to, message):
        """Sends a message to "all", "random", "agent", {"slot": n} or {"pid": n}."""
        self._write({"clusterd": {"to": to}, "message": message})

    def receive(self, timeout=None):
        """The next message, as clusterd passes it on: an object with `clusterd` and `message`. Waits for it, at most `timeout`
        seconds (TimeoutError).

        Messages of clusterd itself to Node (`cmd: "NODE_..."`) are left out.
        """
        self._socket.settimeout(timeout)
        try:
            while True:
                line, found, rest = self._rest.partition(b"\n")
                if found:
                    self._rest = rest
                    message = json.loads(line)
                    if isinstance(message, dict) and str(message.get("cmd", "")).startswith("NODE_"):
                        continue
                    return message
                if len(self._rest) > LINE_BYTES_MAX:
                    raise ValueError("a line of the channel is too long")
                piece = self._socket.recv(65536)
                if not piece:
                    raise ChannelClosed("clusterd has closed the channel")
                self._rest += piece
        finally:
            self._socket.setblocking(True)

    def _write(self, message):
        self._socket.sendall(json.dumps(message, separators=(",", ":")).encode() + b"\n")
