"""docs/sidecar.md and docs/gateways.md name every word of a process's YAML, every counter, and every reason."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
ASKED = re.compile(r"\w\.(?:text|texts|port|number|flag|duration|pairs|section|sections|plain)\(\"(\w+)\"")
READ_BY = re.compile(r"_(?:count|timeout|rate|decimal|networks)\(\w+, \"(\w+)\"")  # of `gateway/protection.py`


def words(*files: Path) -> set[str]:
    texts = [file.read_text() for file in files]
    return {word for text in texts for found in (ASKED, READ_BY) for word in found.findall(text)}


@pytest.mark.parametrize(
    ("page", "files", "some"),
    [
        ("sidecar", [ROOT / "sidecar" / "config.py"], {"destination_name", "wrapped", "drain"}),
        ("gateways", sorted((ROOT / "gateway").glob("*.py")), {"strict_sni", "per_identity", "eab_key_id", "send_to"}),
    ],
)
def test_every_word_of_a_file_is_told(page: str, files: list[Path], some: set[str]) -> None:
    told = set(re.findall(r"\w+", (ROOT / "docs" / f"{page}.md").read_text()))
    asked = words(*files)
    assert some <= asked
    assert sorted(asked - told) == []


def test_every_counter_and_every_reason_is_told() -> None:
    code = "".join(
        file.read_text() for folder in ("dataplane", "sidecar", "policies") for file in (ROOT / folder).glob("*.py")
    )
    pages = "".join((ROOT / "docs" / f"{page}.md").read_text() for page in ("sidecar", "lifecycle", "gateways"))
    told = set(re.findall(r"\w+", pages))
    counters = set(re.findall(r"\"(lictor_\w+)\"", code))
    answers = set(re.findall(r"\bReply\(\d+, \"(\w+)\"", code))
    refused = set(re.findall(r"(?:Identity|Preamble)Error\(\"(\w+)\"", code))
    of_dialling = {"wrong_service", "wrong_name"}  # of whom we call: no connection of a caller is refused by these
    assert (len(counters), len(answers), len(refused)) > (25, 10, 10)
    assert sorted((counters | answers | refused) - of_dialling - told) == []
