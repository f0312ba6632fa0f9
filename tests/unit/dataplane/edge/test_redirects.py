from __future__ import annotations

import pytest

from dataplane.edge.redirects import redirect_reply
from dataplane.heads import parse_request
from policies.edge.tls import RedirectToTls


@pytest.mark.parametrize(
    ("host", "port", "location"),
    [
        ("web.com", 443, "https://web.com/a?b=c"),
        ("web.com:8080", 443, "https://web.com/a?b=c"),
        ("web.com:8080", 8443, "https://web.com:8443/a?b=c"),
        ("[::1]:8080", 8443, "https://[::1]:8443/a?b=c"),
        ("[::1]", 443, "https://[::1]/a?b=c"),
    ],
)
def test_host_path_and_query_are_kept_and_the_port_is_the_tls_listeners(host: str, port: int, location: str) -> None:
    head = parse_request(f"POST /a?b=c HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    reply = redirect_reply(RedirectToTls(port, 301), head)
    assert (reply.status, reply.lines) == (301, f"location: {location}\r\n".encode())


@pytest.mark.parametrize("host", ["", ":8080"])
def test_no_host_leads_nowhere(host: str) -> None:
    head = parse_request(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    head.host = host.encode()
    assert redirect_reply(RedirectToTls(443), head).status == 404
