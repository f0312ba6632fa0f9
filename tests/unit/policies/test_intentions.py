from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from harness.meshes import intention
from policies.intentions import Action, Intentions, parse_intentions

DENY, ALLOW = Action.DENY, Action.ALLOW


class NoHeaders:
    def get_all(self, name: str) -> Sequence[str]:
        del name
        return ()


def intentions(*rows: dict[str, Any]) -> Intentions:
    parsed, problems = parse_intentions(rows)
    assert not problems
    return parsed


def permission(action: str, **http: Any) -> dict[str, Any]:
    return {"Action": action, "HTTP": http}


def ask(
    rows: Intentions, source: str, path: str = "/", method: str = "GET", default: Action = DENY
) -> tuple[bool, str]:
    policy = rows.for_source(source, default)
    decision = policy.constant or policy.request(method, path, NoHeaders())
    return decision.allowed, decision.because


def test_with_no_intention_the_default_decides_and_says_so() -> None:
    assert ask(intentions(), "web") == (False, "no intention has source web or *: the default is deny")
    assert ask(intentions(), "web", default=ALLOW)[0]


def test_an_exact_source_beats_the_wildcard() -> None:
    rows = intentions(intention("*", "api", "allow"), intention("web", "api", "deny"))
    assert ask(rows, "web") == (False, "intention web => api (precedence 9): deny")
    assert ask(rows, "other") == (True, "intention * => api (precedence 8): allow")


def test_an_exact_destination_beats_an_exact_source() -> None:
    rows = intentions(intention("web", "*", "allow"), intention("*", "api", "deny"))
    assert not ask(rows, "web", default=ALLOW)[0]


def test_the_first_row_that_names_the_source_decides_and_no_later_one_is_asked() -> None:
    rows = intentions(
        intention("web", "api", permissions=[permission("allow", PathPrefix="/open")]), intention("*", "api", "allow")
    )
    assert ask(rows, "web", "/open")[0]
    allowed, because = ask(rows, "web", "/other")
    assert not allowed
    assert because == "no permission of intention web => api (precedence 9) matches: the default is deny"
    assert ask(rows, "web", "/other", default=ALLOW)[0]


def test_permissions_are_walked_in_order_and_the_first_match_decides() -> None:
    rows = intentions(
        intention(
            "web",
            "api",
            permissions=[
                permission("deny", PathPrefix="/admin", Methods=["DELETE", "PUT"]),
                permission("allow", PathPrefix="/"),
            ],
        )
    )
    assert ask(rows, "web", "/admin", "GET")[0]
    assert ask(rows, "web", "/admin", "PUT") == (
        False,
        "intention web => api (precedence 9), permission 1: deny DELETE,PUT prefix /admin",
    )


def test_permissions_for_http_never_allow_tcp() -> None:
    rows = intentions(intention("web", "api", permissions=[permission("allow", PathPrefix="/")]))
    decision = rows.for_source("web", ALLOW).connection
    assert not decision.allowed
    assert decision.because == "intention web => api (precedence 9) has HTTP permissions, which never allow tcp"


def test_a_decision_points_at_the_permission_that_made_it() -> None:
    rows = intentions(intention("web", "api", permissions=[permission("allow", PathExact="/a")]))
    decision = rows.for_source("web", DENY).request("GET", "/a", NoHeaders())
    assert decision.permission == 0
    assert decision.intention is rows.rows[0]


def test_peer_intentions_say_nothing_about_local_sources() -> None:
    rows = intentions({**intention("web", "api", "allow"), "SourcePeer": "far"})
    assert not ask(rows, "web")[0]
    assert str(rows.rows[0]) == "peer:far/web => api (precedence 9)"


@pytest.mark.parametrize(("action", "allowed"), [("allow", False), ("deny", False)])
def test_a_permission_that_cannot_be_understood_never_allows_and_always_denies(action: str, allowed: bool) -> None:  # noqa: FBT001
    rows, problems = parse_intentions(
        [intention("web", "api", permissions=[permission(action, PathRegex="("), permission("deny", PathExact="/x")])]
    )
    assert ask(rows, "web", "/any") == (allowed, ask(rows, "web", "/any")[1])
    assert problems[0].where == "intention web => api permission 1"
    assert problems[0].fix == ("it never allows" if action == "allow" else "it always denies")


def test_a_broken_allow_leaves_the_next_permissions_in_force() -> None:
    rows, _ = parse_intentions(
        [intention("web", "api", permissions=[permission("allow", PathRegex="("), permission("allow", PathExact="/x")])]
    )
    assert ask(rows, "web", "/x")[0]
    assert not ask(rows, "web", "/y")[0]


def test_jwt_fails_closed_on_an_intention_and_on_a_permission() -> None:
    rows, problems = parse_intentions(
        [
            {**intention("web", "api", "allow"), "JWT": {"Providers": [{"Name": "okta"}]}},
            intention("app", "api", permissions=[{**permission("allow", PathPrefix="/"), "JWT": {"Providers": [1]}}]),
        ]
    )
    assert not ask(rows, "web", default=ALLOW)[0]
    assert not ask(rows, "app")[0]
    assert ["JWT" in problem.message for problem in problems] == [True, True]


def test_an_unknown_action_denies() -> None:
    rows, problems = parse_intentions([{**intention("web", "api", "perhaps")}])
    assert not ask(rows, "web", default=ALLOW)[0]
    assert "'perhaps' is not allow or deny" in problems[0].message
    rows, problems = parse_intentions([intention("web", "api", permissions=[permission("perhaps", PathPrefix="/")])])
    assert not ask(rows, "web", default=ALLOW)[0]
    assert problems


def test_a_row_without_a_precedence_gets_consuls() -> None:
    rows = intentions(
        *(
            {"SourceName": source, "DestinationName": destination, "Action": "allow"}
            for source in ("web", "*")
            for destination in ("api", "*")
        )
    )
    assert [(row.source, row.destination, row.precedence) for row in rows.rows] == [
        ("web", "api", 9),
        ("*", "api", 8),
        ("web", "*", 6),
        ("*", "*", 5),
    ]


def test_a_permission_reads_as_a_sentence() -> None:
    rows = intentions(
        intention(
            "web",
            "api",
            permissions=[
                permission("allow", PathExact="/a", Header=[{"Name": "x", "Exact": "1", "Invert": True}]),
                permission("deny"),
            ],
        )
    )
    assert [str(item) for item in rows.rows[0].permissions] == ["allow exact /a not header x", "deny"]


@pytest.mark.parametrize(
    "rule",
    [
        {"Action": "allow", "HTTP": {"PathPrefix": "/", "QueryParam": [{"Name": "q"}]}},
        {"Action": "allow", "HTTP": {"Header": [{"Name": "h", "Present": True, "Suffixes": ["x"]}]}},
        {"Action": "allow", "HTTP": {"PathPrefix": "/"}, "Hours": "9-17"},
    ],
)
def test_a_criterion_that_is_not_known_never_allows_and_is_shown(rule: dict[str, Any]) -> None:
    parsed, (problem,) = parse_intentions([intention("web", "api", permissions=[rule])])
    assert not ask(parsed, "web")[0]
    assert "is not understood" in problem.message
    denies, _ = parse_intentions([intention("web", "api", permissions=[{**rule, "Action": "deny"}])])
    assert not ask(denies, "web", default=ALLOW)[0]


def test_a_source_that_is_narrowed_by_something_unknown_is_denied_and_shown() -> None:
    parsed, (problem,) = parse_intentions([{**intention("*", "api", "allow"), "SourceSamenessGroup": "near"}])
    assert not ask(parsed, "web")[0]
    assert "SourceSamenessGroup is not understood" in problem.message


def test_what_a_later_consul_may_say_of_an_intention_is_shown() -> None:
    parsed, (problem,) = parse_intentions([{**intention("web", "api", "allow"), "Hours": "9-17", "Old": None}])
    assert ask(parsed, "web")[0]
    assert (problem.where, problem.message) == ("intention web => api", "its Hours is not understood")


def test_what_only_describes_an_intention_has_no_effect() -> None:
    told = {"Description": "x", "Hash": "y", "LegacyMeta": {"a": "b"}, "SourceSamenessGroup": ""}
    assert ask(intentions({**intention("web", "api", "allow"), **told}), "web")[0]
