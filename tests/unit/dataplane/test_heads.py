from __future__ import annotations

import pytest

from dataplane import heads
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
    head = parse_request(request("GET / HTTP/1.1\nHost: x\nX-Forwarded-Proto: a\nX-Forwarded-Client-Cert: b\n\n"))
    assert (head.proto, head.xfcc) == (True, True)


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


@pytest.mark.parametrize(
    "target", ["http://user@api/x", "http://u:p@api/x", "http://api/x#y", "http:///x", "ws://api/"]
)
def test_an_absolute_form_with_a_user_or_a_fragment_is_refused(target: str) -> None:
    with pytest.raises(BadHead) as caught:
        parse_request(request(f"GET {target} HTTP/1.1\nHost: x\n\n"))
    assert (caught.value.status, caught.value.reason) == (400, "bad_target")


def test_the_host_of_an_absolute_form_takes_the_place_of_the_other() -> None:
    head = parse_request(request("GET http://api:80?q HTTP/1.1\nHost: x\nX-A: 1\n\n"))
    assert (head.host, head.target, head.lines) == (b"api:80", b"/?q", b"Host: api:80\r\nX-A: 1\r\n")


@pytest.mark.parametrize("host", ["", "api", "api:80", "api:", "a_b.c", "[::1]:80", "1.2.3.4", "a%41"])
def test_a_host_is_taken(host: str) -> None:
    assert parse_request(request(f"GET / HTTP/1.1\nHost: {host}\n\n")).host == host.encode()


@pytest.mark.parametrize(
    "host", ["a b", "u@a", "a,b", "a/b", "a?b", "a#b", "a\\b", "a:b", "a:1:2", "\xe9", "[::1", "a%", "<a>"]
)
def test_what_names_no_host_is_refused(host: str) -> None:
    for text in (
        f"GET / HTTP/1.1\nHost: {host}\n\n",
        f"GET http://a/ HTTP/1.1\nHost: {host}\n\n",
        f"GET http://{host}/ HTTP/1.1\nHost: a\n\n",
    ):
        if f"http://{host}" in text and host in {"a/b", "a?b"}:
            continue  # there it is a path
        with pytest.raises(BadHead) as caught:
            parse_request(request(text))
        assert caught.value.status == 400


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("GET /\nHost: x\n\n", 426),
        ("GET\t/ HTTP/1.1\nHost: x\n\n", 400),
        ("GET\t/\nHost: x\n\n", 400),
        ("\nGET / HTTP/1.1\nHost: x\n\n", 400),
        ("POST / HTTP/1.1\nHost: x\nContent-Length: 9223372036854775808\n\n", 400),
        ("POST / HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\nTransfer-Encoding: chunked\n\n", 501),
    ],
)
def test_a_request_that_another_hop_might_read_otherwise_is_refused(text: str, status: int) -> None:
    with pytest.raises(BadHead) as caught:
        parse_request(request(text))
    assert caught.value.status == status


@pytest.mark.parametrize(
    "lines", ["Content-Length: 1\n", "Transfer-Encoding: chunked\n", "Content-Length: 1\nUpgrade: websocket\n"]
)
def test_an_upgrade_has_no_body(lines: str) -> None:
    with pytest.raises(BadHead) as caught:
        parse_request(request(f"GET / HTTP/1.1\nHost: x\nConnection: upgrade\nUpgrade: websocket\n{lines}\n"))
    assert caught.value.status in {400, 403}


def test_an_upgrade_is_of_a_get_that_names_it_in_connection() -> None:
    assert parse_request(request("GET / HTTP/1.1\nHost: x\nUpgrade: websocket\nConnection: a, Upgrade\n\n")).upgrade
    head = parse_request(request("GET / HTTP/1.1\nHost: x\nUpgrade: websocket\n\n"))
    assert (head.upgrade, head.render()) == (False, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    with pytest.raises(BadHead):
        parse_request(request("POST / HTTP/1.1\nHost: x\nUpgrade: websocket\nConnection: Upgrade\n\n"))


def test_a_certificate_told_under_a_name_that_apps_read_alike_is_not_passed_on() -> None:
    head = parse_request(request("GET / HTTP/1.1\nHost: x\nX_Forwarded-Client_Cert: forged\nX_A: 1\n\n"))
    assert head.render() == b"GET / HTTP/1.1\r\nHost: x\r\nX_A: 1\r\n\r\n"


def test_a_removal_of_many_names_is_that_of_each() -> None:
    names = [f"x-{number}" for number in range(200)]
    lines = b"".join(b"%b: 1\r\n" % name.title().encode() for name in names)
    assert without(b"A: 1\r\n" + lines + b"B: x-1: 2\r\n", frozenset(name.encode() for name in names)) == (
        b"A: 1\r\nB: x-1: 2\r\n"
    )
    assert without(lines, frozenset(name.encode() for name in names)) == b""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("HTTP/1.1 099 Early\n\n", "status_line"),
        ("HTTP/1.1 000 Early\n\n", "status_line"),
        ("HTTP/1.1 200 O\0K\n\n", "status_line"),
        ("HTTP/2.0 200 OK\n\n", "status_line"),
        ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nTransfer-Encoding: chunked\n\n", "two_framings"),
        ("HTTP/1.1 103 Early Hints\nContent-Length: 5\n\n", "body_not_allowed"),
        ("HTTP/1.1 204 No Content\nTransfer-Encoding: chunked\n\n", "body_not_allowed"),
        ("HTTP/1.1 101 Go\nConnection: Upgrade\nUpgrade: websocket\nContent-Length: 5\n\n", "body_not_allowed"),
        ("HTTP/1.1 200 OK\nContent-Length: 9223372036854775808\n\n", "content_length"),
    ],
)
def test_an_answer_that_another_hop_might_read_otherwise_is_a_502(text: str, reason: str) -> None:
    with pytest.raises(BadHead) as caught:
        parse_response(request(text))
    assert (caught.value.status, caught.value.reason) == (502, reason)


def test_a_length_of_nothing_where_none_may_stand_is_left_out() -> None:
    head = parse_response(request("HTTP/1.1 204 No Content\nContent-Length: 0\nX-A: 1\n\n"))
    assert head.render() == b"HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n"


@pytest.mark.parametrize("before", [b"\n", b"\r", b"\n\n", b" ", b"\x00"])
def test_a_method_is_never_read_with_what_stands_before_it(before: bytes) -> None:
    """llhttp reads over line ends there, and a rule for GET would not have matched."""
    with pytest.raises(BadHead) as caught:
        parse_request(before + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert caught.value.status == 400


def test_nothing_of_60_kb_is_kept_or_compiled() -> None:
    """A pattern of such a name takes 46 ms to compile, and a caller sends another one with every request."""
    memos = (heads._lines_named, heads._known_host, heads._known_fields)
    before = [memo.cache_info().currsize for memo in memos]
    name, host = "n" * 20000, "h" * 20000
    head = parse_request(request(f"GET / HTTP/1.1\nHost: {host}\nConnection: {name}\n{name.upper()}: 1\nX-A: 1\n\n"))
    assert head.render() == b"GET / HTTP/1.1\r\nHost: %b\r\nX-A: 1\r\n\r\n" % host.encode()
    assert [memo.cache_info().currsize for memo in memos] == before


FIELDS = "Host: x\nConnection: X-B\nX-B: 1\nX-C: 2\nX-Forwarded-Client-Cert: c\n"


def test_the_same_fields_under_another_line_are_read_once() -> None:
    first = parse_request(request(f"GET /a HTTP/1.1\n{FIELDS}\n"))
    hits = heads._known_fields.cache_info().hits
    second = parse_request(request(f"PUT /b HTTP/1.1\n{FIELDS}\n"))
    assert heads._known_fields.cache_info().hits == hits + 1
    assert (first.method, first.target, second.method, second.target) == ("GET", b"/a", "PUT", b"/b")
    assert (second.host, second.strip, second.xfcc) == (first.host, first.strip, first.xfcc)


def test_what_is_done_to_one_head_is_not_done_to_the_next_with_the_same_fields() -> None:
    head = parse_request(request(f"GET /a HTTP/1.1\n{FIELDS}\n"))
    before = (head.lines, head.strip, head.get_all("x-c"))
    head.end_hop()
    head.change(b"Host: y\r\nX-C: 3\r\n")
    head.host, head.xfcc, head.proto, head.close = b"y", False, True, True
    other = parse_request(request(f"GET /a HTTP/1.1\n{FIELDS}\n"))
    assert (other.lines, other.strip, other.get_all("x-c")) == before
    assert (other.host, other.xfcc, other.proto, other.close) == (b"x", True, False, False)


def test_fields_that_are_known_are_refused_under_a_line_that_they_do_not_fit() -> None:
    upgrade = "Host: x\nConnection: upgrade\nUpgrade: websocket\n"
    assert parse_request(request(f"GET / HTTP/1.1\n{upgrade}\n")).upgrade
    for text, reason in (
        (f"POST / HTTP/1.1\n{upgrade}\n", "upgrade_with_body"),
        (f"GET / HTTP/1.0\n{upgrade}\n", "http_version"),
        (f"GETT / HTTP/1.1\n{upgrade}\n", "malformed"),
        (f"GET http://a:b/ HTTP/1.1\n{upgrade}\n", "bad_host"),
    ):
        with pytest.raises(BadHead) as caught:
            parse_request(request(text))
        assert caught.value.reason == reason
