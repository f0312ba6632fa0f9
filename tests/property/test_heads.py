"""What is passed on is read by h11 as what came; what h11 would refuse is never passed on."""

from __future__ import annotations

import contextlib

import h11
from hypothesis import given
from hypothesis import strategies as st

from dataplane.heads import BadHead, parse_request

TOKENS = st.text("abcXYZ-09_", min_size=1, max_size=8)
VALUES = st.text("abc XYZ,;=\"'/09", max_size=20).map(str.strip)
FIELDS = st.lists(st.tuples(TOKENS.map(lambda name: f"x-{name}"), VALUES), max_size=6)


def read_by_h11(head: bytes) -> h11.Request:
    parser = h11.Connection(h11.SERVER)
    parser.receive_data(head)
    event = parser.next_event()
    assert isinstance(event, h11.Request), event
    return event


@given(st.sampled_from(["GET", "PUT", "DELETE"]), st.text("abc/?=&%", max_size=12), FIELDS)
def test_a_plain_request_is_passed_on_as_it_came(method: str, target: str, fields: list[tuple[str, str]]) -> None:
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
    head = f"{method} /{target} HTTP/1.1\r\nHost: api\r\n{lines}\r\n".encode()
    event = read_by_h11(parse_request(head).render())
    assert (event.method.decode(), event.target.decode()) == (method, f"/{target}")
    expected = [(b"host", b"api"), *((name.lower().encode(), value.encode()) for name, value in fields)]
    assert list(event.headers) == expected


@given(
    st.lists(
        st.sampled_from(
            [
                "GET / HTTP/1.1",
                "Host: a",
                "Content-Length: 1",
                "Transfer-Encoding: chunked",
                " x",
                "x",
                ":",
                "a: b",
                "a : b",
                "Connection: a",
                "Connection: close",
                "\x00",
                "Host: b",
                "Upgrade: websocket",
                "\n",
                "\t",
            ]
        ),
        max_size=6,
    )
)
def test_what_h11_refuses_is_never_passed_on(lines: list[str]) -> None:
    head = ("\r\n".join(["GET / HTTP/1.1", *lines]) + "\r\n\r\n").encode()
    end = head.index(b"\r\n\r\n") + 4
    with contextlib.suppress(BadHead):
        rendered = parse_request(head[:end]).render()
        event = read_by_h11(rendered)
        names = [name for name, _ in event.headers]
        assert names.count(b"host") == 1
        assert not (b"content-length" in names and b"transfer-encoding" in names)
