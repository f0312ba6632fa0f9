from __future__ import annotations

import socket
from pathlib import PurePath

import pytest

from lictor.up.checks import calls_of, circle_of, explained, taken
from lictor.up.plan import MeshFile, Service
from policies.errors import Problem


@pytest.mark.parametrize(
    ("calls", "circle"),
    [
        ({}, []),
        ({"a": ["b"], "b": ["c"], "c": []}, []),
        ({"a": ["b", "c"], "b": ["d"], "c": ["d"], "d": []}, []),
        ({"a": ["a"]}, ["a", "a"]),
        ({"a": ["b"], "b": ["c"], "c": ["b"]}, ["b", "c", "b"]),
        ({"a": ["elsewhere"]}, []),
    ],
)
def test_a_circle_of_calls(calls: dict[str, list[str]], circle: list[str]) -> None:
    assert circle_of(calls) == circle


def test_what_any_instance_calls_its_service_calls() -> None:
    def one(name: str, called: str) -> Service:
        return Service(name, "api", (), PurePath(), upstreams={called: 1})

    assert calls_of(MeshFile((one("v1", "b"), one("v2", "a")))) == {"api": ["a", "b"]}


def test_problems_are_told_once_by_line_the_own_file_first() -> None:
    problems = [
        Problem("z.hcl:1: Kind", "third", "x"),
        Problem("m.yaml:10: services.web.port", "second"),
        Problem("m.yaml:9: services.web", "first", "own cure"),
        Problem("m.yaml:9: services.web", "first", "own cure"),
    ]
    assert explained(problems, "m.yaml") == (
        Problem("m.yaml:9: services.web", "first", "own cure"),
        Problem("m.yaml:10: services.web.port", "second", "write a number such as `port: 9090`"),
        Problem("z.hcl:1: Kind", "third", "x"),
    )


def test_a_port_that_is_taken_tells_by_whom() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        held.listen()
        assert taken(port).startswith("address already in use by ")
        assert "(process " in taken(port)
    assert taken(port) == ""
