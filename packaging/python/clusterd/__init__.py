"""For Python programs that run as workers or agents of clusterd: their sockets, readiness, status, messages. And `Client`, for scripts
that reload, scale or roll back what runs.

Without clusterd (or systemd) `sockets()` is empty, `ready()` and the others do nothing and return False.
"""

from __future__ import annotations

import os as _os
import socket as _socket

from ._binary import find_binary
from ._channel import Channel, ChannelClosed
from ._control import Client, ClusterdError

__all__ = [
    "Channel",
    "ChannelClosed",
    "Client",
    "ClusterdError",
    "app",
    "find_binary",
    "generation",
    "is_clusterd",
    "notify",
    "ready",
    "slot",
    "sockets",
    "status",
    "stopping",
]

_FIRST_FD = 3


def _number(name: str) -> int | None:
    text = _os.environ.get(name)
    return int(text) if text is not None else None


#: Whether clusterd started this process.
is_clusterd: bool = "CLUSTERD_APP" in _os.environ
#: The app's name; None without clusterd.
app: str | None = _os.environ.get("CLUSTERD_APP")
#: This worker's place, from 0; its replacement has the same. None without clusterd, and in an agent.
slot: int | None = _number("CLUSTERD_SLOT")
#: Counts reloads, from 1. None without clusterd.
generation: int | None = _number("CLUSTERD_GENERATION")


def sockets() -> list[_socket.socket]:
    """The listening sockets that this process was given (LISTEN_FDS), as socket objects, in the order of the configuration.

    Each call returns new objects for the same sockets.
    """
    if _os.environ.get("LISTEN_PID") != str(_os.getpid()):
        return []
    count = int(_os.environ.get("LISTEN_FDS", "0"))
    found = []
    for fd in range(_FIRST_FD, _FIRST_FD + count):
        _os.set_inheritable(fd, False)
        found.append(_socket.socket(fileno=_os.dup(fd)))
    return found


def notify(state: str) -> bool:
    """Sends lines of sd_notify(3) to clusterd or systemd. False where nobody asked for them (no NOTIFY_SOCKET)."""
    address = _os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    if address[0] == "@":
        address = "\0" + address[1:]
    with _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC) as sender:
        sender.connect(address)
        sender.sendall(state.encode())
    return True


def ready() -> bool:
    """This worker serves."""
    return notify("READY=1")


def stopping() -> bool:
    """This worker takes no further connections."""
    return notify("STOPPING=1")


def status(text: str) -> bool:
    """A line about what this worker does, which `clusterd ls` shows."""
    return notify("STATUS=" + text.replace("\n", " "))
