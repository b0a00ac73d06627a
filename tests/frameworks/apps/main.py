"""A bare ASGI app, which answers with its pid."""
import os


async def app(scope, receive, send):
    """One request; servers take an app without a lifespan as well."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    body = b"pid=%d" % os.getpid()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
