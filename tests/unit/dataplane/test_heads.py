from __future__ import annotations

import pytest

from dataplane.heads import BadHead, looks_wrong, parse_request, parse_response, without


def request(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode("latin-1")


def test_a_request_keeps_its_lines_as_they_came() -> None:
    head = parse_request(request("GET /a?b=c HTTP/1.1\nHost: x\nX-Odd:  two  words \n\n"))
    assert (head.method, head.target, head.host, head.path, head.query) == ("GET", b"/a?b=c", b"x", "/a", "b=c")
    assert head.lines == b"Host: x\r\nX-Odd:  two  words \r\n"
    assert head.render() == b"GET /a?b=c HTTP/1.1\r\nHost: x\r\nX-Odd:  two  words \r\n\r\n"


def test_values_are_found_by_lower_case_name_trimmed_and_line_by_line() -> None:
    head = parse_request(request("GET / HTTP/1.1\nHost: x\nX-A: 1 \nx-a:\t2\n\n"))
    assert head.get_all("x-a") == ["1", "2"]
    assert head.get_all(":authority") == ["x"]
    assert head.get_all(":method") == ["GET"]
    assert head.get_all(":path") == ["/"]
    assert head.get_all("missing") == ()


def test_what_concerns_the_hop_is_left_out_when_rendered() -> None:
    head = parse_request(request("GET / HTTP/1.1\nHost: x\nConnection: close, X-B\nX-B: 1\nTE: gzip\nX-C: 2\n\n"))
    assert head.close
    assert head.render() == b"GET / HTTP/1.1\r\nHost: x\r\nX-C: 2\r\n\r\n"
    assert head.render(b"x-d: 3\r\n", frozenset({b"x-c"})) == b"GET / HTTP/1.1\r\nHost: x\r\nx-d: 3\r\n\r\n"


def test_a_websocket_upgrade_is_renewed_on_the_next_hop() -> None:
    head = parse_request(request("GET / HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade: WebSocket\n\n"))
    assert head.upgrade
    assert head.render() == b"GET / HTTP/1.1\r\nHost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n"


def test_framing_is_read() -> None:
    assert parse_request(request("POST / HTTP/1.1\nHost: x\nContent-Length: 12\n\n")).content_length == 12
    chunked = parse_request(request("POST / HTTP/1.1\nHost: x\nTransfer-Encoding: Chunked\nExpect: 100-continue\n\n"))
    assert chunked.chunked
    assert chunked.expects


def test_fields_about_the_way_here_are_noticed() -> None:
    head = parse_request(request("GET / HTTP/1.1\nHost: x\nX-Forwarded-For: a\nX-Forwarded-Client-Cert: b\n\n"))
    assert (head.forwarded, head.xfcc) == (True, True)


def test_a_removal_takes_every_line_of_that_name_only() -> None:
    lines = b"X-A: 1\r\nX-AB: 2\r\nx-a: 3\r\nB: x-a: 4\r\n"
    assert without(lines, frozenset({b"x-a"})) == b"X-AB: 2\r\nB: x-a: 4\r\n"


def test_an_incomplete_head_that_can_never_be_good_is_known() -> None:
    assert looks_wrong(b"GET / HTTP/1.1\nHost")
    assert not looks_wrong(b"GET / HTTP/1.1\r\nHost")


def test_an_answer_keeps_its_status_line_and_its_lines() -> None:
    head = parse_response(request("HTTP/1.1 299 Very Fine\nX-A: 1\nContent-Length: 3\n\n"))
    assert (head.status, head.content_length, head.chunked, head.close) == (299, 3, False, False)
    assert head.render(b"x-b: 2\r\n") == b"HTTP/1.1 299 Very Fine\r\nX-A: 1\r\nContent-Length: 3\r\nx-b: 2\r\n\r\n"


def test_an_old_answer_is_told_as_a_new_one_and_its_connection_not_kept() -> None:
    head = parse_response(request("HTTP/1.0 200 OK\n\n"))
    assert head.close
    assert head.render() == b"HTTP/1.1 200 OK\r\n\r\n"


def test_an_answers_connection_may_name_fields_away_but_not_those_that_matter() -> None:
    head = parse_response(request("HTTP/1.1 200 OK\nConnection: X-A, Content-Type, close\nX-A: 1\nContent-Type: t\n\n"))
    assert head.close
    assert head.render() == b"HTTP/1.1 200 OK\r\nContent-Type: t\r\n\r\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("HTTP/1.1 200 OK\nTransfer-Encoding: gzip\n\n", "transfer_encoding"),
        ("HTTP/3.0 200 OK\n\n", "malformed"),
        ("nonsense\n\n", "malformed"),
        ("HTTP/1.1 200 OK\nX: " + "y" * 70000 + "\n\n", "head_too_large"),
    ],
)
def test_an_answer_that_cannot_be_read_is_a_502(text: str, reason: str) -> None:
    with pytest.raises(BadHead) as caught:
        parse_response(request(text))
    assert (caught.value.status, caught.value.reason) == (502, reason)
