"""A bare WSGI app: no framework, nothing of clusters. It answers with its pid."""
import json
import os


def app(environ, start_response):
    """One request."""
    body = json.dumps({"framework": "wsgi", "pid": os.getpid()}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
