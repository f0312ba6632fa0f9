from __future__ import annotations

import pytest

from policies.errors import EntryError
from policies.modifiers import Variable, check, complaints, parse_value, usable
from policies.routes import HeaderModifiers


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("plain", ("plain",)),
        ("100%%", ("100", "%")),
        ("%%%PROTOCOL%", ("%", Variable("PROTOCOL"))),
        ("a%PROTOCOL%b%PROTOCOL%", ("a", Variable("PROTOCOL"), "b", Variable("PROTOCOL"))),
        ("%REQ(X-A?:path):9%", (Variable("REQ", ("x-a", ":path"), 9),)),
        ("%QUERY_PARAM(Q)%", (Variable("QUERY_PARAM", ("Q",)),)),
        ("%START_TIME(%s)%", (Variable("START_TIME", ("%s",)),)),
        (
            "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%",
            (Variable("DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT"),),
        ),
        ("%DOWNSTREAM_PEER_SUBJECT%", ()),
        ("", ()),
    ],
)
def test_values_are_text_and_variables(text: str, pieces: tuple[str | Variable, ...]) -> None:
    assert parse_value(text) == pieces


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("x-a", "100% sure", "lone % at position 3"),
        ("x-a", "%NOPE%", "not known here: NOPE"),
        ("x-a", "%UPSTREAM_HOST%", "not known here: UPSTREAM_HOST"),
        ("x-a", "%ENVIRONMENT(HOME)%", "not known here: ENVIRONMENT"),
        ("x-a", "%REQ%", "not known here: REQ"),
        ("x-a", "%PROTOCOL(x)%", "not known here: PROTOCOL"),
        ("x-a", "%START_TIME(%Y)%", "not known here: START_TIME"),
        ("x-a", "%protocol%", "lone %"),
        ("x-a", f"%REQ(x-b):{'9' * 5000}%", "lone % at position 0"),
        ("x-a", "%DOWNSTREAM_LOCAL_PORT%%", "lone % at position 23"),
        ("x-a", "1\r\nx-b: 2", "control character"),
        ("host", "evil", "not for modifiers"),
        (":path", "/x", "not for modifiers"),
        ("content-length", "5", "not for modifiers"),
        ("x a", "1", "not for modifiers"),
    ],
)
def test_what_envoy_refuses_or_is_not_known_here_is_an_error(name: str, text: str, told: str) -> None:
    with pytest.raises(EntryError, match=told):
        check(name, text)


def test_one_bad_modifier_is_a_problem_and_the_others_are_used() -> None:
    level = HeaderModifiers(add=(("x-ok", "1"), ("x-bad", "%NOPE%")), set=(("host", "x"),), remove=("x-gone", "host"))
    assert list(usable(level.add)) == [("x-ok", ("1",))]
    assert complaints([level, None, level]) == (
        "Set of header 'host': it is not for modifiers to change",
        "Add of header 'x-bad': the value '%NOPE%' holds a variable that is not known here: NOPE",
        "Remove of header 'host': it is not for modifiers to change",
    )
