"""Messages between an agent that is a Python program and the workers of its app, over the channel of clusterd.

In the configuration, `[app.agent]` has `protocol = "node"`.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any

#: A line may not be longer, in bytes: clusterd passes on messages of at most 1 MiB.
LINE_BYTES_MAX = 2 << 20
#: What is read at a time, in bytes.
_PIECE_BYTES = 65536


class ChannelClosed(Exception):
    """clusterd has closed the channel: this process shall end."""


class Channel:
    """The agent's end of its channel. Use it from one thread, or with a lock.

    Iterating over it gives the messages until clusterd closes the channel:

        with clusterd.Channel() as channel:
            channel.ready()
            for said in channel:
                ...
    """

    def __init__(self) -> None:
        number = os.environ.get("NODE_CHANNEL_FD")
        if number is None:
            raise RuntimeError('this process has no channel: [app.agent] needs protocol = "node"')
        os.set_inheritable(int(number), False)
        self._socket = socket.socket(fileno=os.dup(int(number)))
        self._socket.setblocking(True)
        self._rest = b""

    def fileno(self) -> int:
        """For select and the event loops. A message may wait here too: call `receive` with 0 until it raises TimeoutError."""
        return self._socket.fileno()

    def ready(self) -> None:
        """The agent is ready: workers may start."""
        self._write("ready")

    def send(self, to: str | dict[str, int], message: Any, id: str | int | None = None) -> None:
        """Sends a message to "all", "random", "agent", {"slot": n} or {"pid": n}.

        A receiver that does not get it is reported by a message, `{"clusterd": {"undelivered": 1, "reason": ..., "id": id}}`.
        """
        envelope: dict[str, Any] = {"to": to}
        if id is not None:
            envelope["id"] = id
        self._write({"clusterd": envelope, "message": message})

    def receive(self, timeout: float | None = None) -> Any:
        """The next message, as clusterd passes it on. Waits for it, at most `timeout` seconds (TimeoutError).

        From a worker: `{"clusterd": {"from": {"slot": 0, "pid": 4211}}, "message": ...}`. From clusterd itself, about the app's
        workers: `{"clusterd": {"event": "worker_exit", ...}}`.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            line, found, rest = self._rest.partition(b"\n")
            if found:
                self._rest = rest
                message = json.loads(line)
                # What clusterd says to Node itself.
                if isinstance(message, dict) and str(message.get("cmd", "")).startswith("NODE_"):
                    continue
                return message
            if len(self._rest) > LINE_BYTES_MAX:
                raise ValueError("a line of the channel is too long")
            piece = self._read(until)
            if not piece:
                raise ChannelClosed("clusterd has closed the channel")
            self._rest += piece

    def close(self) -> None:
        """Closes this end."""
        self._socket.close()

    def __iter__(self) -> Iterator[Any]:
        while True:
            try:
                yield self.receive()
            except ChannelClosed:
                return

    def __enter__(self) -> Channel:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _read(self, until: float | None) -> bytes:
        left = None if until is None else max(0.0, until - time.monotonic())
        self._socket.settimeout(left)
        try:
            return self._socket.recv(_PIECE_BYTES)
        except BlockingIOError:
            raise TimeoutError("no message in time") from None
        except socket.timeout:
            raise TimeoutError("no message in time") from None
        finally:
            self._socket.setblocking(True)

    def _write(self, message: Any) -> None:
        self._socket.sendall(json.dumps(message, separators=(",", ":")).encode() + b"\n")
