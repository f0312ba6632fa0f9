"""A store that answers each line with itself. Its port is $PORT."""

import os
import socketserver


class Handler(socketserver.StreamRequestHandler):
    """One connection."""

    def handle(self) -> None:
        """Answer every line."""
        for line in self.rfile:
            self.wfile.write(b"store: " + line)


class Server(socketserver.ThreadingTCPServer):
    """Takes its port again at once after a restart."""

    allow_reuse_address = True
    daemon_threads = True


Server(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
