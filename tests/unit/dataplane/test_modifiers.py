from __future__ import annotations

import re
import socket
from typing import Any, cast

import pytest

from dataplane.downstream import Downstream
from dataplane.heads import RequestHead, parse_request, parse_response
from dataplane.modifiers import Moment, compile_edits
from policies.routes import HeaderModifiers


class Connection:
    """A caller's connection, as far as variables look at it."""

    client: tuple[str, int] | None = None

    def __init__(self, host: str = "10.0.0.1") -> None:
        self._host = host

    @property
    def keeper(self) -> Connection:
        return self

    @property
    def transport(self) -> Connection:
        return self

    def get_extra_info(self, name: str) -> Any:
        return {"peername": (self._host, 5000, 0, 0), "sockname": ("10.0.0.2", 80)}[name]


def moment(request: RequestHead | None = None, answer: bytes = b"", host: str = "10.0.0.1") -> Moment:
    response = parse_response(answer) if answer else None
    return Moment(cast("Downstream", Connection(host)), request, response)


def apply(lines: bytes, *levels: HeaderModifiers | None, at: Moment | None = None) -> bytes:
    for edit in compile_edits(levels):
        lines = edit.apply(lines, at or moment())
    return lines


def test_removes_come_first_then_sets_then_adds() -> None:
    modifiers = HeaderModifiers(add=(("x-a", "3"), ("x-b", "4")), set=(("x-b", "2"),), remove=("x-a",))
    assert apply(b"X-A: 0\r\nX-B: 0\r\nX-C: 0\r\n", modifiers) == b"X-C: 0\r\nx-b: 2\r\nx-a: 3\r\nx-b: 4\r\n"


def test_levels_run_one_after_the_other() -> None:
    leg, router = HeaderModifiers(add=(("x-a", "leg"),), remove=("x-b",)), HeaderModifiers(add=(("x-b", "router"),))
    gateway = HeaderModifiers(remove=("x-a",), add=(("x-a", "gateway"),))
    assert apply(b"X-B: 0\r\n", leg, router, None, gateway) == b"x-b: router\r\nx-a: gateway\r\n"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("100%% sure", "100% sure"),
        ("é", "é"),
        ("%DOWNSTREAM_REMOTE_ADDRESS%", "10.0.0.1:5000"),
        ("%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%", "10.0.0.1:5000"),
        ("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "10.0.0.1"),
        ("%DOWNSTREAM_REMOTE_PORT%", "5000"),
        ("%DOWNSTREAM_LOCAL_ADDRESS%", "10.0.0.2:80"),
        ("%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%", "10.0.0.2"),
        ("%DOWNSTREAM_LOCAL_PORT%", "80"),
        ("%PROTOCOL%", "HTTP/1.1"),
        ("%HOSTNAME%", socket.gethostname()),
        ("%RESPONSE_CODE%", "0"),
        ("%REQ(X-A)%", "hello"),
        ("%REQ(x-a):2%", "he"),
        ("%REQ(x-none?x-a)%", "hello"),
        ("%REQ(x-two)%", "1"),
        ("%REQ(:path)%", "/p?q=7"),
        ("%REQ(:method)% %REQ(:authority)%", "GET api"),
        ("%QUERY_PARAM(q)%", "7"),
        ("a%REQ(x-none)%b", "ab"),
    ],
)
def test_variables_are_filled_in(text: str, value: str) -> None:
    request = parse_request(b"GET /p?q=7 HTTP/1.1\r\nHost: api\r\nX-A: hello \r\nX-Two: 1\r\nX-Two: 2\r\n\r\n")
    for modifiers in (HeaderModifiers(set=(("x-v", text),)), HeaderModifiers(add=(("x-v", text),))):
        assert apply(b"", modifiers, at=moment(request)) == f"x-v: {value}\r\n".encode()


def test_an_ipv6_address_stands_in_brackets() -> None:
    modifiers = HeaderModifiers(set=(("x-v", "%DOWNSTREAM_REMOTE_ADDRESS%"),))
    assert apply(b"", modifiers, at=moment(host="::1")) == b"x-v: [::1]:5000\r\n"


def test_times_are_those_of_now() -> None:
    modifiers = HeaderModifiers(set=(("x-s", "%START_TIME(%s)%"), ("x-t", "%START_TIME%")))
    found = apply(b"", modifiers).decode()
    assert re.fullmatch(r"x-s: \d{10}\r\nx-t: \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\r\n", found)


def test_answers_tell_of_themselves_and_of_their_request() -> None:
    request = parse_request(b"GET / HTTP/1.1\r\nHost: api\r\nX-A: 1\r\n\r\n")
    at = moment(request, b"HTTP/1.1 204 No Content\r\nX-App: yes\r\n\r\n")
    modifiers = HeaderModifiers(set=(("x-v", "%RESPONSE_CODE% %RESP(:status)% %RESP(X-App)% %REQ(x-a)%"),))
    assert apply(b"", modifiers, at=at) == b"x-v: 204 204 yes 1\r\n"


@pytest.mark.parametrize("text", ["", "%DOWNSTREAM_PEER_URI_SAN%", "%REQ(x-none)%", "%RESP(x)%", "%QUERY_PARAM(q)%"])
def test_a_value_that_comes_out_empty_changes_nothing(text: str) -> None:
    assert apply(b"X-A: 0\r\n", HeaderModifiers(set=(("x-a", text),), add=(("x-b", text),))) == b"X-A: 0\r\n"


@pytest.mark.parametrize(
    "pair",
    [
        ("host", "evil"),
        ("content-length", "5"),
        ("transfer-encoding", "chunked"),
        ("x a", "1"),
        ("x-a", "1\r\nx-b: 2"),
        ("x-a", "\x00"),
        ("x-a", "100% sure"),
        ("x-a", "%NOPE%"),
    ],
)
def test_a_modifier_that_cannot_be_made_is_left_out_alone(pair: tuple[str, str]) -> None:
    modifiers = HeaderModifiers(set=(pair,), add=(("x-ok", "1"), pair))
    assert apply(b"Host: a\r\nX-A: 0\r\n", modifiers) == b"Host: a\r\nX-A: 0\r\nx-ok: 1\r\n"


def test_host_cannot_be_removed() -> None:
    assert apply(b"Host: a\r\n", HeaderModifiers(remove=("host",))) == b"Host: a\r\n"


def test_variables_do_not_see_what_their_level_removes_but_what_the_level_before_has_set() -> None:
    """As Envoy, over random requests beside it."""
    request = parse_request(b"GET / HTTP/1.1\r\nHost: a\r\nX-C: app\r\nX-A: app\r\n\r\n")
    at = Moment(moment().downstream, request)
    levels = (
        HeaderModifiers(set=(("x-a", "%REQ(X-C)%"),), remove=("x-c",)),
        HeaderModifiers(set=(("x-c", "leg"),)),
        HeaderModifiers(add=(("x-b", "%REQ(X-C)%"),)),
    )
    for edit in compile_edits(levels):
        request.change(edit.apply(request.lines, at))
    assert request.lines == b"Host: a\r\nX-A: app\r\nx-c: leg\r\nx-b: leg\r\n"
