"""What is asked of a forward proxy means the same to whoever reads it, or is refused."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from dataplane.egress.proxied_heads import parse_proxied
from dataplane.heads import BadHead
from policies.egress.forward_proxy import HTTP_PORT, parse_authority

PIECES = (
    "a",
    "B.example",
    "127.0.0.1",
    "[::1]",
    "0x7f",
    "1",
    ".",
    "..",
    "-",
    "_",
    ":",
    "@",
    "%",
    "%2e",
    "/",
    "\\",
    "#",
    "?",
)
MORE = ("443", "0", "00", "65536", "[", "]", " ", "\t", "\x00", "\xe9", "http://", "https://", "localhost", "*")
hosts = st.lists(st.sampled_from(PIECES + MORE), max_size=6).map("".join)
methods = st.sampled_from(("GET", "CONNECT", "POST", "connect"))
versions = st.sampled_from(("HTTP/1.1", "HTTP/1.0", "HTTP/0.9"))


@given(hosts)
def test_an_authority_has_one_form(text: str) -> None:
    found = parse_authority(text, HTTP_PORT)
    if found is not None:
        assert parse_authority(str(found)) == found
        assert 0 < found.port < 65536
        assert not set(found.host) & set(" @/\\%?#*\t\x00")


@given(methods, st.sampled_from(("{}", "http://{}/x", "HTTP://{}")), hosts, hosts, versions)
def test_target_and_host_say_the_same_or_the_head_is_refused(
    method: str, form: str, target: str, host: str, version: str
) -> None:
    asked = form.format(target)
    raw = f"{method} {asked} {version}\r\nHost: {host}\r\n\r\n".encode("latin-1")
    with contextlib.suppress(BadHead):
        head = parse_proxied(raw)
        default = None if head.method == "CONNECT" else HTTP_PORT
        meant = parse_authority(head.host.decode("latin-1"), default)
        assert head.method == method
        assert list(head.get_all("host")) == [head.host.decode("latin-1")]
        assert "@" not in head.host.decode("latin-1")
        if meant is not None:  # else it is of no linked service
            told = parse_authority(host, default or meant.port)
            assert told == meant, "what the next one reads in Host is what was judged"
