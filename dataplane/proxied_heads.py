"""Heads of requests to a forward proxy: `CONNECT host:port` and the absolute form, and nothing else.

Everything that `heads` demands holds here too. What is asked for is said twice, in the target and in Host, and must be
the same: whoever reads the one is never deceived about the other. Source: RFC 9110 section 9.3.6, RFC 9112 section 3.2.
"""

from __future__ import annotations

import re

from dataplane.heads import BadHead, RequestHead, parse_request

_HOST = re.compile(rb"(?im)^host:[ \t]*([^\r\n]*?)[ \t]*\r$")
_CONNECT = b"CONNECT "


def parse_proxied(head: bytes) -> RequestHead:
    """Return a head whose `host` is the authority asked for. Raise BadHead.

    `target` is that authority for CONNECT, else the path with its query.
    """
    line, _, lines = head.partition(b"\r\n")
    if line.startswith(_CONNECT):
        return _parse_connect(line, lines)
    request = parse_request(head)
    target = line.split(b" ")[1]
    if target.startswith(b"/"):
        raise BadHead(400, "not_proxied")
    if not target[:7].lower() == b"http://":
        raise BadHead(400, "https_without_connect")
    _check_host(request.host, lines)
    return request


def _parse_connect(line: bytes, lines: bytes) -> RequestHead:
    words = line.split(b" ")
    if len(words) != 3:  # noqa: PLR2004 - method, target, version
        raise BadHead(400, "bad_request_line")
    # A target of CONNECT is no path: the rest is judged as that of any request.
    request = parse_request(b"GET / %b\r\n%b" % (words[2], lines))
    if request.chunked or request.content_length or request.upgrade or request.expects:
        raise BadHead(400, "connect_with_body")
    _check_host(words[1], lines)
    request.method, request.target, request.host = "CONNECT", words[1], words[1]
    return request


def _check_host(authority: bytes, lines: bytes) -> None:
    found = _HOST.search(lines)
    if found is None or found[1].lower() != authority.lower():
        raise BadHead(400, "host_is_not_the_target")
