"""A bare ASGI app: no framework, nothing of clusters. It answers with its pid, and tells the service manager, if there
is one, when it has started (sd_notify)."""
import json
import os
import socket


async def app(scope, receive, send):
    """One request, or the start and the end of the whole."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    body = json.dumps({"framework": "asgi", "pid": os.getpid()}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def lifespan(receive, send):
    """Start-up and shutdown."""
    await receive()
    notify("READY=1")
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


def notify(message):
    """Tells whoever started us."""
    name = os.environ.get("NOTIFY_SOCKET")
    if name:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.sendto(message.encode(), "\0" + name[1:] if name.startswith("@") else name)
