from __future__ import annotations

from typing import Any, cast

import pytest

from dataplane.downstream import Downstream
from dataplane.hashing import makes_cookies, new_cookies, request_hash
from dataplane.heads import RequestHead, parse_request
from policies.balance import HashPolicy, stable_hash


class Connection:
    """A caller's connection, as far as hashing looks at it."""

    client_address = "10.0.0.9"

    @property
    def transport(self) -> Connection:
        return self

    def get_extra_info(self, name: str) -> Any:
        return {"peername": ("10.0.0.9", 5000), "sockname": ("10.0.0.1", 80)}[name]


CALLER = cast("Downstream", Connection())


def head(*lines: str, target: str = "/") -> RequestHead:
    return parse_request("\r\n".join([f"GET {target} HTTP/1.1", "Host: a", *lines, "", ""]).encode())


@pytest.mark.parametrize(
    ("policy", "request_head", "text"),
    [
        (HashPolicy("header", "X-User"), head("x-user: u1"), "u1"),
        (HashPolicy("header", "X-User"), head("x-user: b", "x-user: a"), "a,b"),
        (HashPolicy("header", "X-User"), head("x-user:"), ""),
        (HashPolicy("header", "X-User"), head(), None),
        (HashPolicy("cookie", "sid"), head("Cookie: a=b; sid=7"), "7"),
        (HashPolicy("cookie", "sid"), head("Cookie: a=b", 'Cookie: sid="7"'), "7"),
        (HashPolicy("cookie", "sid"), head("Cookie: sid="), None),
        (HashPolicy("cookie", "sid"), head("Cookie: SID=7"), None),
        (HashPolicy("query_parameter", "id"), head(target="/?x=1&id=7&id=8"), "7"),
        (HashPolicy("query_parameter", "id"), head(target="/?id"), ""),
        (HashPolicy("query_parameter", "id"), head(target="/?%69d=7"), None),
        (HashPolicy("source_ip"), head(), "10.0.0.9"),
        (HashPolicy("of_tomorrow"), head(), None),
    ],
)
def test_each_policy_hashes_what_it_finds(policy: HashPolicy, request_head: RequestHead, text: str | None) -> None:
    found = request_hash((policy,), request_head, CALLER)
    assert found == (None if text is None else stable_hash(text))
    assert new_cookies((policy,), request_head, CALLER) == b""


def test_a_cookie_is_made_up_only_with_a_ttl_or_for_the_session() -> None:
    plain, lasting = HashPolicy("cookie", "a"), HashPolicy("cookie", "b", cookie_ttl=60.0, cookie_path="/x")
    session = HashPolicy("cookie", "c", cookie_session=True)
    assert [makes_cookies((policy,)) for policy in (plain, lasting, session)] == [False, True, True]
    lines = new_cookies((plain, lasting, session), head(), CALLER).decode()
    value = lines.split('"')[1]
    assert len(value) == 16
    assert lines == (f'set-cookie: b="{value}"; Max-Age=60; Path=/x; HttpOnly\r\nset-cookie: c="{value}"; HttpOnly\r\n')


def test_the_request_goes_by_the_cookie_that_its_answer_sets() -> None:
    policies = (HashPolicy("cookie", "c", cookie_session=True),)
    value = new_cookies(policies, head(), CALLER).decode().split('"')[1]
    assert request_hash(policies, head(), CALLER) == request_hash(policies, head(f"Cookie: c={value}"), CALLER)


def test_behind_a_terminal_policy_that_found_something_no_cookie_is_made_up() -> None:
    policies = (HashPolicy("header", "x-user", terminal=True), HashPolicy("cookie", "c", cookie_session=True))
    assert new_cookies(policies, head("x-user: u1"), CALLER) == b""
    assert new_cookies(policies, head(), CALLER).startswith(b'set-cookie: c="')
