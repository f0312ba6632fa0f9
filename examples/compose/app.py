"""A service for the demo, from the standard library alone: says who it is, and what the services say that it calls."""

from __future__ import annotations

import argparse
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def call(url: str) -> str:
    """Return what a service answers, or why it did not."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return str(answer.read().decode().strip())
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.read().decode().strip()}"
    except OSError as error:
        return f"failed: {error}"


def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    parser.add_argument("--version", default="v1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--call", action="append", default=[], help="name=url of a service to call")
    parser.add_argument(
        "--pass", dest="passed", action="append", default=[], help="path=url that is asked for this path"
    )
    arguments = parser.parse_args()
    calls = [pair.partition("=") for pair in arguments.call]
    passed = [pair.partition("=") for pair in arguments.passed]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answers = [call(url + self.path) for path, _, url in passed if self.path.startswith(path)]
            answers = answers or [f"{name}: {call(url)}" for name, _, url in calls]
            said = " -> ".join([f"{arguments.name} {arguments.version}", *answers])
            body = f"{said}\n".encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keep quiet: the sidecars log."""

    # On loopback alone: the only way in is the sidecar.
    ThreadingHTTPServer(("127.0.0.1", arguments.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
