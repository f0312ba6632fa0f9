"""Heads of requests to a forward proxy: `CONNECT host:port` and the absolute form, and nothing else.

Everything that `heads` demands holds here too. What is asked for is said twice, in the target and in Host, and must be
the same: whoever reads the one is never deceived about the other. Source: RFC 9110 section 9.3.6, RFC 9112 section 3.2.
"""

from __future__ import annotations

import re

from dataplane.heads import BadHead, RequestHead, names_a_host, parse_request, without
from policies.egress.forward_proxy import CONNECT

_HOST = re.compile(rb"(?im)^host:[ \t]*([^\r\n]*?)[ \t]*\r$")


def parse_proxied(head: bytes) -> RequestHead:
    """Return a head whose `host` is the authority asked for. Raise BadHead.

    `target` is that authority for CONNECT, else the path with its query.
    """
    line, _, lines = head.partition(b"\r\n")
    if line.startswith(b"CONNECT "):
        return _parse_connect(line, lines)
    request = parse_request(head)
    target = line.split(b" ")[1]
    if target.startswith(b"/"):
        raise BadHead(400, "not_proxied")
    if not target[:7].lower() == b"http://":
        raise BadHead(400, "https_without_connect")
    _check_host(request.host, lines, b"80")
    return request


def _parse_connect(line: bytes, lines: bytes) -> RequestHead:
    words = line.split(b" ")
    if len(words) != 3:  # noqa: PLR2004 - method, target, version
        raise BadHead(400, "bad_request_line")
    authority, version = words[1:]
    if not names_a_host(authority):  # llhttp does not see it
        raise BadHead(400, "bad_target")
    if version == b"HTTP/1.0":  # Python's http.client asks for tunnels like this, without a Host before 3.12
        lines = lines if _HOST.search(lines) is not None else b"Host: %b\r\n%b" % (authority, lines)
    # A target of CONNECT is no path: the rest is judged as that of any request.
    request = parse_request(b"GET / %b\r\n%b" % (b"HTTP/1.1" if version == b"HTTP/1.0" else version, lines))
    if request.chunked or request.content_length or request.upgrade or request.expects:
        raise BadHead(400, "connect_with_body")
    _check_host(authority, lines, _port(authority))
    request.method, request.target, request.host = CONNECT, authority, authority
    request.change(b"Host: %b\r\n%b" % (authority, without(request.lines, frozenset({b"host"}))))
    request.close = True  # where no tunnel comes of it: what was sent ahead was meant for that, and is no request
    return request


def _check_host(authority: bytes, lines: bytes, default_port: bytes) -> None:
    """Let Host pass if it is the authority: in any case, and with or without a port that goes without saying."""
    found = _HOST.search(lines)
    if found is None or _told(found[1], default_port) != _told(authority, default_port):
        raise BadHead(400, "host_is_not_the_target")


def _told(text: bytes, default_port: bytes) -> tuple[bytes, bytes]:
    port = _port(text)
    return text.removesuffix(b":" + port).lower(), port or default_port


def _port(text: bytes) -> bytes:
    port = text.rpartition(b":")[2] if b":" in text else b""
    return b"" if port.endswith(b"]") else port
