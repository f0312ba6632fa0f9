"""Sending a caller who came in plaintext to the TLS listener."""

from __future__ import annotations

from dataplane.exchange import Reply
from dataplane.heads import RequestHead
from policies.edge.tls import RedirectToTls

HTTPS = "https"  # what a trusted proxy may have ended before us: that caller is where it should be
_HTTPS_PORT = 443


def redirect_reply(redirect: RedirectToTls, head: RequestHead) -> Reply:
    """Return the answer: the same host, path and query with https. A request for no host goes nowhere: 404."""
    host = _without_port(head.host)
    if not host:
        return Reply(404, "no_host_matches")
    port = b"" if redirect.port == _HTTPS_PORT else b":%d" % redirect.port
    location = b"location: https://%b%b%b\r\n" % (host, port, head.target)
    return Reply(redirect.status, "redirect_to_tls", b"", location)


def _without_port(host: bytes) -> bytes:
    end = host.rfind(b":")
    return host[:end] if end > host.rfind(b"]") else host
