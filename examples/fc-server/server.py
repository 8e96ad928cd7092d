"""A custom runtime: an HTTP server that takes every request of the function. Standard library only."""

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Function(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        request = self.headers.get("x-fc-request-id")
        print(f"FC Invoke Start RequestId: {request}", flush=True)
        event = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b"You sent: " + event
        self.wfile.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        print(f"FC Invoke End RequestId: {request}", flush=True)

    def log_message(self, *args):
        """The lines above are enough."""


ThreadingHTTPServer(("0.0.0.0", int(os.environ.get("FC_SERVER_PORT", "9000"))), Function).serve_forever()
