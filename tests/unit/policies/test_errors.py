from __future__ import annotations

import pytest

from policies import errors
from policies.errors import (
    CatalogBadAnswer,
    CatalogError,
    CatalogFault,
    CatalogForbidden,
    CatalogNotFound,
    CatalogRateLimited,
    CatalogRefused,
    CatalogTimedOut,
    CatalogUnreachable,
    ConfigError,
    IdentityError,
    IssuerForbidden,
    IssuerRefused,
    IssuerUnreachable,
    MeshError,
    Problem,
)


def test_a_problem_is_one_line_with_place_mistake_and_cure() -> None:
    assert str(Problem("web.yaml:3", "port is missing", "add port: 8080")) == (
        "web.yaml:3: port is missing; add port: 8080"
    )
    assert str(Problem("web.yaml:3", "port is missing")) == "web.yaml:3: port is missing"


def test_a_config_error_tells_every_problem_in_order() -> None:
    error = ConfigError((Problem("a", "one"), Problem("b", "two", "mend it")))
    assert str(error) == "a: one\nb: two; mend it"
    assert error.problems[1].fix == "mend it"


def test_a_catalog_error_names_method_and_path() -> None:
    error = CatalogFault("GET /v1/agent/self", "no leader")
    assert str(error) == "GET /v1/agent/self: no leader"
    assert (error.where, error.detail) == ("GET /v1/agent/self", "no leader")


def test_an_identity_error_has_a_word_for_counters() -> None:
    assert IdentityError("two_uris", "there are two").reason == "two_uris"


@pytest.mark.parametrize("kind", [CatalogForbidden, CatalogNotFound, CatalogRefused, IssuerForbidden, IssuerRefused])
def test_asking_again_does_not_help_with_terminal_errors(kind: type[MeshError]) -> None:
    assert kind.terminal


@pytest.mark.parametrize(
    "kind",
    [CatalogUnreachable, CatalogTimedOut, CatalogRateLimited, CatalogFault, CatalogBadAnswer, IssuerUnreachable],
)
def test_what_may_pass_is_asked_again(kind: type[MeshError]) -> None:
    assert not kind.terminal


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (CatalogForbidden("GET /x", "ACL not found"), "this Consul does not know the token"),
        (CatalogForbidden("GET /x", "Permission denied: anonymous token lacks permission 'a:b'"), "no token was given"),
        (CatalogForbidden("GET /x", "Permission denied: token with AccessorID '1' lacks"), "the token's policy lacks"),
        (CatalogFault("PUT /x", 'discovery chain "a" uses a protocol "tcp" that does not permit'), "write Protocol ="),
        (CatalogFault("PUT /x", "No cluster leader"), ""),
        (CatalogUnreachable("GET /x", "no agent answers"), "start it, or say where it is"),
    ],
)
def test_an_error_says_what_to_do_about_it(error: CatalogError, advice: str) -> None:
    assert error.advice.startswith(advice)
    assert bool(error.advice) is bool(advice)


def test_every_error_is_in_the_drawn_tree() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert all(issubclass(kind, MeshError) for kind in kinds)
    drawing = errors.__doc__ or ""
    assert [kind.__name__ for kind in kinds if kind.__name__ not in drawing] == []
