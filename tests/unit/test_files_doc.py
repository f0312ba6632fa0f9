"""docs/sidecar.md and docs/gateways.md name every word of a process's YAML, every counter, and every reason."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.config import read_gateway
from sidecar.config import read_sidecar

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


def examples(page: str) -> Iterator[str]:
    """Yield the YAML of a page: fenced or indented, from a word of ours on."""
    text = (ROOT / "docs" / f"{page}.md").read_text()
    yield from re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    for block in re.findall(r"(?:(?<=\n\n)|^)(?:    .*\n)+", text):
        if re.match(r"    (?:gateway|service|tls):", block):
            yield textwrap.dedent(block)


@pytest.mark.parametrize(("page", "count"), [("sidecar", 1), ("gateways", 9)])
def test_every_example_is_read_without_a_mistake(page: str, count: int, tmp_path: Path) -> None:
    found = list(examples(page))
    assert len(found) == count
    for text in found:
        words = yaml.safe_load(text)
        whole: dict[str, Any] = (
            {"gateway": {"service": "edge", "address": "192.0.2.1:8443"}} if "service" not in words else {}
        )
        login = {"method": "token", "token_file": "t"}
        whole |= {"vault": {"address": "https://vault:8200", "auth": login}, **words}
        whole["consul"] = {"address": "127.0.0.1:8500"}  # a token's file has to be there
        file = tmp_path / "x.yaml"
        file.write_text(yaml.safe_dump(whole))
        (read_sidecar if "service" in words else read_gateway)(file, {})
