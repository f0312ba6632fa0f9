"""Heads of requests to a forward proxy: what is asked for, told twice and the same."""

from __future__ import annotations

import pytest

from dataplane.egress.proxied_heads import parse_proxied
from dataplane.heads import BadHead


def raw(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode() + b"\r\n\r\n"


def test_a_tunnel_is_asked_for_by_host_and_port() -> None:
    head = parse_proxied(raw("CONNECT api.example.com:443 HTTP/1.1\nHost: API.example.com:443\nX-A: 1"))
    assert (head.method, head.target, head.host) == ("CONNECT", b"api.example.com:443", b"api.example.com:443")
    assert head.get_all("x-a") == ["1"]
    assert head.render() == raw("CONNECT api.example.com:443 HTTP/1.1\nHost: api.example.com:443\nX-A: 1")


@pytest.mark.parametrize(
    ("line", "host"),
    [
        ("CONNECT a:443", "a"),
        ("CONNECT a:443", "A:443"),
        ("CONNECT [::1]:443", "[::1]"),
        ("GET http://a:80/", "a"),
        ("GET http://a/", "a:80"),
        ("GET http://[::1]/", "[::1]:80"),
    ],
)
def test_a_port_that_goes_without_saying_may_be_left_out(line: str, host: str) -> None:
    assert len(parse_proxied(raw(f"{line} HTTP/1.1\nHost: {host}")).get_all("host")) == 1


def test_a_line_end_in_what_is_asked_for_does_not_reach_the_gateway() -> None:
    """The port is all that Host need not say too."""
    with pytest.raises(BadHead):
        parse_proxied(b"CONNECT a:1\nX-Evil HTTP/1.1\r\nHost: a\r\n\r\n")


def test_the_absolute_form_is_a_path_and_a_host() -> None:
    head = parse_proxied(raw("GET HTTP://api.example.com:8080/a?b HTTP/1.1\nHost: api.example.com:8080\t"))
    assert (head.method, head.target, head.host) == ("GET", b"/a?b", b"api.example.com:8080")
    head = parse_proxied(raw("GET http://api.example.com HTTP/1.1\nHost: api.example.com"))
    assert (head.target, head.host) == (b"/", b"api.example.com")


def test_an_old_client_may_ask_for_a_tunnel_without_a_host() -> None:
    head = parse_proxied(raw("CONNECT api.example.com:443 HTTP/1.0\nX-A: 1"))
    assert head.render() == raw("CONNECT api.example.com:443 HTTP/1.1\nHost: api.example.com:443\nX-A: 1")
    assert head.close
    assert parse_proxied(raw("CONNECT a:1 HTTP/1.0\nHost: a:1")).get_all("host") == ["a:1"]
    with pytest.raises(BadHead):
        parse_proxied(raw("CONNECT a:1 HTTP/1.0\nHost: b:1"))
    with pytest.raises(BadHead):
        parse_proxied(raw("GET http://a/ HTTP/1.0\nHost: a"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("GET / HTTP/1.1\nHost: a", "not_proxied"),
        ("GET https://a/ HTTP/1.1\nHost: a", "https_without_connect"),
        ("GET ftp://a/ HTTP/1.1\nHost: a", "bad_target"),
        ("GET http://a/ HTTP/1.1\nHost: b", "host_is_not_the_target"),
        ("GET http://a:8080/ HTTP/1.1\nHost: a", "host_is_not_the_target"),
        ("GET http://a/ HTTP/1.1\nHost: a:8080", "host_is_not_the_target"),
        ("GET http://[::1]/ HTTP/1.1\nHost: [::2]", "host_is_not_the_target"),
        ("CONNECT a:1 HTTP/1.1\nHost: a:2", "host_is_not_the_target"),
        ("CONNECT a:1 HTTP/1.1\nHost: b", "host_is_not_the_target"),
        ("GET http://u@a/ HTTP/1.1\nHost: a", "bad_target"),
        ("CONNECT a:1 HTTP/1.1\nHost: b:1", "host_is_not_the_target"),
        ("CONNECT a:1 HTTP/1.1\nX-Host: a:1\nHost: b:1", "host_is_not_the_target"),
        ("CONNECT a:1  HTTP/1.1\nHost: a:1", "bad_request_line"),
        ("CONNECT a:1 HTTP/1.1 x\nHost: a:1", "bad_request_line"),
        ("CONNECT a:1 HTTP/2.0\nHost: a:1", "http_version"),
        ("CONNECT a:1 HTTP/1.1\nHost: a:1\nHost: a:1", "two_hosts"),
        ("CONNECT a:1 HTTP/1.1\nHost: a:1\nContent-Length: 1", "connect_with_body"),
        ("CONNECT a:1 HTTP/1.1\nHost: a:1\nTransfer-Encoding: chunked", "connect_with_body"),
        ("CONNECT a:1 HTTP/1.1\nHost: a:1\nExpect: 100-continue", "connect_with_body"),
        ("CONNECT a:1 HTTP/1.1\nHost: a:1\nConnection: upgrade\nUpgrade: websocket", "connect_with_body"),
        ("CONNECT a:1 HTTP/1.1\nHost: a:1\nA b: c", "malformed"),
        ("connect a:1 HTTP/1.1\nHost: a:1", "malformed"),
        ("\nCONNECT a:1 HTTP/1.1\nHost: a:1", "bad_request_line"),
        ("CONNECT a:1\x0bX HTTP/1.1\nHost: a", "bad_target"),
        ("CONNECT a:1\x00 HTTP/1.1\nHost: a", "bad_target"),
    ],
)
def test_everything_else_is_refused(text: str, reason: str) -> None:
    with pytest.raises(BadHead) as caught:
        parse_proxied(raw(text))
    assert caught.value.reason == reason
