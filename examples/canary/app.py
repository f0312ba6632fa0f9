"""Says its name; calls the URL given as second argument and says what that answered. Its port is $PORT."""

import os
import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME, CALLED = sys.argv[1], sys.argv[2:]


class Handler(BaseHTTPRequestHandler):
    """Answers every GET."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body leave in one packet; two would wait for each other

    def do_GET(self) -> None:
        """Answer."""
        text = NAME
        if CALLED and self.path != "/health":
            with urllib.request.urlopen(CALLED[0], timeout=5) as answer:
                text += " -> " + answer.read().decode().strip()
        body = f"{text}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing: the mesh tells what matters."""


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
