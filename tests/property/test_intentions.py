"""Intentions against a second opinion: precedence by brute force, and what must hold for any set of rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from policies.intentions import Action, Intentions, parse_intentions

NAMES = st.sampled_from(["web", "api", "db", "*"])
PATHS = st.sampled_from(["/", "/a", "/a/b", "/admin"])
METHODS = st.sampled_from(["GET", "PUT"])


class NoHeaders:
    def get_all(self, name: str) -> Sequence[str]:
        del name
        return ()


@st.composite
def rows(draw: st.DrawFn) -> list[dict[str, Any]]:
    pairs = draw(st.lists(st.tuples(NAMES, st.sampled_from(["me", "*"])), unique=True, max_size=8))
    found = []
    for source, destination in pairs:
        row: dict[str, Any] = {"SourceName": source, "DestinationName": destination}
        if draw(st.booleans()):
            row["Action"] = draw(st.sampled_from(["allow", "deny"]))
        else:
            row["Permissions"] = draw(
                st.lists(
                    st.fixed_dictionaries(
                        {
                            "Action": st.sampled_from(["allow", "deny"]),
                            "HTTP": st.fixed_dictionaries(
                                {"PathPrefix": PATHS, "Methods": st.lists(METHODS, max_size=1)}
                            ),
                        }
                    ),
                    min_size=1,
                    max_size=3,
                )
            )
        found.append(row)
    return found


def parsed(found: list[dict[str, Any]]) -> Intentions:
    intentions, problems = parse_intentions(found)
    assert not problems
    return intentions


def ask(intentions: Intentions, source: str, default: Action, path: str, method: str) -> bool:
    policy = intentions.for_source(source, default)
    return (policy.constant or policy.request(method, path, NoHeaders())).allowed


def brute_force(found: list[dict[str, Any]], source: str, default: Action, path: str, method: str) -> bool:
    """Consul's four ranks, written out."""
    ranks = [(source, "me"), ("*", "me"), (source, "*"), ("*", "*")]
    for rank in ranks:
        for row in found:
            if (row["SourceName"], row["DestinationName"]) != rank:
                continue
            if "Action" in row:
                return bool(row["Action"] == "allow")
            for permission in row["Permissions"]:
                http = permission["HTTP"]
                if path.startswith(http["PathPrefix"]) and (not http["Methods"] or method in http["Methods"]):
                    return bool(permission["Action"] == "allow")
            return default is Action.ALLOW
    return default is Action.ALLOW


@given(rows(), st.sampled_from(["web", "api", "other"]), st.sampled_from(Action), PATHS, METHODS)
def test_the_answer_is_that_of_consuls_ranks_written_out(
    found: list[dict[str, Any]], source: str, default: Action, path: str, method: str
) -> None:
    assert ask(parsed(found), source, default, path, method) == brute_force(found, source, default, path, method)


@given(rows().flatmap(lambda found: st.tuples(st.just(found), st.permutations(found))), st.sampled_from(Action))
def test_the_order_of_the_rows_never_matters(
    both: tuple[list[dict[str, Any]], list[dict[str, Any]]], default: Action
) -> None:
    assert parsed(both[0]) == parsed(both[1])
    assert ask(parsed(both[0]), "web", default, "/", "GET") == ask(parsed(both[1]), "web", default, "/", "GET")


@given(rows(), st.sampled_from(Action), PATHS, METHODS)
def test_an_unrelated_row_never_changes_an_answer(
    found: list[dict[str, Any]], default: Action, path: str, method: str
) -> None:
    unrelated = {"SourceName": "nobody", "DestinationName": "me", "Action": "allow"}
    assert ask(parsed(found), "web", default, path, method) == ask(
        parsed([*found, unrelated]), "web", default, path, method
    )


@given(rows(), st.sampled_from(["web", "other"]))
def test_permissions_for_http_never_allow_a_connection(found: list[dict[str, Any]], source: str) -> None:
    decision = parsed(found).for_source(source, Action.DENY).connection
    if decision.allowed:
        assert decision.intention is not None
        assert decision.intention.action is Action.ALLOW


@given(rows(), st.sampled_from(["web", "other"]))
def test_the_default_is_reached_only_when_nothing_matches(found: list[dict[str, Any]], source: str) -> None:
    decision = parsed(found).for_source(source, Action.ALLOW).connection
    if decision.intention is None:
        assert not any(row["SourceName"] in {source, "*"} for row in found)


@given(rows())
def test_every_decision_has_a_reason(found: list[dict[str, Any]]) -> None:
    policy = parsed(found).for_source("web", Action.DENY)
    assert policy.connection.because
    assert policy.request("GET", "/", NoHeaders()).because
