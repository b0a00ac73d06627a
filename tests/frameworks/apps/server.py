"""A server with Python's http.server."""
import http.server
import os


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"pid=%d" % os.getpid()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), Answer).serve_forever()
