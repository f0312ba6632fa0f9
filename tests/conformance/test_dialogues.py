"""The embedded Consul answers as the real one: the dialogues of `dialogues/*.http`, held with both, step by step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.dialogues import Said, Speaker, Step, hold, read_dialogues
from harness.servers import MANAGEMENT_TOKEN, consul_server, dev_server

FILES = sorted((Path(__file__).parent / "dialogues").glob("*.http"))
STEPS = {file.stem: read_dialogues(file) for file in FILES}
Answers = dict[str, dict[Step, tuple[Said, Said]]]


@pytest.fixture(scope="module")
def answers() -> Iterator[Answers]:
    """What both said, by file: each file talks to servers of its own."""
    found: Answers = {}
    for name, steps in STEPS.items():
        acl = name == "acl"
        with consul_server(acl=acl) as real, dev_server(acl=acl) as dev:
            tokens = {"management": MANAGEMENT_TOKEN, "unknown": "00000000-1111-2222-3333-444444444444"}
            speakers = [Speaker(server.http_addr, tokens) for server in (real, dev)]
            found[name] = {step: (first, second) for step, first, second in hold(steps, *speakers)}
    yield found


@pytest.mark.parametrize(("name", "step"), [(name, step) for name, steps in STEPS.items() for step in steps], ids=str)
def test_both_say_the_same(answers: Answers, name: str, step: Step) -> None:
    real, dev = answers[name][step]
    assert dev == real, step.text
