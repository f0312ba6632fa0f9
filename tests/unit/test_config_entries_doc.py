"""docs/config-entries.md names every field of the entries that concern traffic, and no other."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from policies.entries.schemas import SCHEMAS
from policies.entries.shapes import Listing, Optional, Shape, Struct, Table
from policies.weak import folded

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "docs" / "config-entries.md").read_text()
KINDS = (
    "service-router",
    "service-splitter",
    "service-resolver",
    "service-defaults",
    "proxy-defaults",
    "mesh",
    "service-intentions",
    "jwt-provider",
    "ingress-gateway",
    "terminating-gateway",
    "inline-certificate",
    "file-system-certificate",
    "api-gateway",
    "http-route",
    "tcp-route",
)
# Where the opaque keys are read, by the heading of their table.
READERS = {
    "Opaque keys of `Proxy.Config`": ("policies/proxies.py", "policies/retries.py"),
    "Opaque keys of an upstream's `Config`": ("policies/proxies.py", "policies/limits.py", "policies/outliers.py"),
}


def rows(heading: str) -> list[tuple[str, str, str]]:
    """Return the three cells of every row below a heading."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines[2:]]  # type: ignore[misc]


def expanded(text: str) -> list[str]:
    """Return what a path with `{A,B}` stands for."""
    parts = [part[1:-1].split(",") if part.startswith("{") else [part] for part in re.split(r"(\{[^}]*\})", text)]
    return ["".join(chosen) for chosen in itertools.product(*parts)]


def named(heading: str) -> list[str]:
    cells = [cell for cell, _, _ in rows(heading)]
    return [path for cell in cells for text in re.findall(r"`([^`]+)`", cell) for path in expanded(text)]


def fields(shape: Shape, path: str = "") -> Iterator[str]:
    """Yield the paths of all fields that hold a value of their own."""
    while isinstance(shape, Optional | Listing | Table):
        shape = shape.of
    if not isinstance(shape, Struct) or not shape.fields:  # one without fields is of Enterprise
        yield path
        return
    for field in shape.fields:
        yield from fields(field.shape, f"{path}.{field.name}" if path else field.name)


def covers(path: str, field: str) -> bool:
    return field.startswith(path[:-1]) if path.endswith(".*") else field == path


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_is_named_once_and_every_row_names_one(kind: str) -> None:
    there = list(fields(SCHEMAS[kind]))
    own, common = named(kind), named("In every kind")
    for field in there:
        assert len([path for path in (*own, *common) if covers(path, field)]) == 1, field
    assert [path for path in own if not any(covers(path, field) for field in there)] == []


@pytest.mark.parametrize("heading", [*KINDS, "In every kind", *READERS])
def test_every_row_says_whether_and_how_or_why_not(heading: str) -> None:
    assert rows(heading)
    for cell, obeyed, reason in rows(heading):
        assert obeyed in {"yes", "Consul", "no"}, cell
        assert reason or obeyed == "yes", f"{cell} needs a reason"
        assert ".*" not in cell or obeyed != "yes", f"{cell}: what is obeyed is named field by field"


def test_the_opaque_keys_are_those_that_are_read() -> None:
    asked = re.compile(r"\b(?:config|part)(?:\.(?:text|number|flag|part)\(\s*|, )\"(\w+)\"")
    read = {
        folded(key) for files in READERS.values() for file in files for key in asked.findall((ROOT / file).read_text())
    }
    told = {
        folded(word)
        for heading in READERS
        for cell, obeyed, _ in rows(heading)
        if obeyed == "yes"
        for path in re.findall(r"`([^`]+)`", cell)
        for word in path.split(".")
    }
    balance = {"balanceinboundconnections", "balanceoutboundconnections"}  # nothing has to be read for these
    assert read >= {"protocol", "connecttimeoutms", "maxinboundconnections"}
    assert read == told - balance
