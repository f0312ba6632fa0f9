from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest

from controlplane.consul.catalog import Catalog
from lictor.up.console import Console
from lictor.up.written import EntryRefused, Written
from policies.errors import CatalogForbidden


class Twin:
    """A Consul's config entries in memory."""

    def __init__(self, *held: dict[str, Any]) -> None:
        self.held = {(entry["Kind"], entry["Name"]): {**entry, "ModifyIndex": 1} for entry in held}
        self.index = 1
        self.refuses = ""

    async def ask(self, method: str, parts: Sequence[str], query: Mapping[str, str], body: Any = None) -> Any:
        key = (body["Kind"], body["Name"]) if body else cast("tuple[str, str]", tuple(parts[1:]))
        if key[1] == self.refuses:
            raise CatalogForbidden("/v1/config", "Permission denied")
        held = self.held.get(key)
        if method == "GET":
            return held
        if "cas" in query and int(query["cas"]) != (held["ModifyIndex"] if held else 0):
            return False
        self.index += 1
        if method == "PUT":
            self.held[key] = {**body, "ModifyIndex": self.index}
        else:
            del self.held[key]
        return True

    def values(self) -> dict[str, Any]:
        return {name: entry["V"] for (_, name), entry in self.held.items()}


def entry(name: str, value: int) -> dict[str, Any]:
    return {"Kind": "service-defaults", "Name": name, "V": value}


def written(twin: Twin) -> tuple[Written, io.StringIO]:
    output = io.StringIO()
    return Written(cast("Catalog", twin), Console(output, {})), output


async def test_what_was_not_there_is_taken_back() -> None:
    twin = Twin(entry("other", 9))
    entries, _ = written(twin)
    await entries.write([entry("a", 1), entry("b", 1)], [entry("b", 1)])
    assert twin.values() == {"other": 9, "a": 1, "b": 1}
    await entries.take_back()
    await entries.take_back()
    assert twin.values() == {"other": 9}


async def test_a_made_entry_gives_way_and_one_of_the_file_replaces() -> None:
    twin = Twin(entry("made", 9), entry("own", 9))
    entries, output = written(twin)
    await entries.write([entry("made", 1), entry("own", 1)], [entry("made", 1)])
    await entries.take_back()
    assert twin.values() == {"made": 9, "own": 1}
    assert "service-defaults/made is there already and stays as it is" in output.getvalue()
    assert "service-defaults/own is there already and is replaced" in output.getvalue()


async def test_what_somebody_has_changed_stays() -> None:
    twin = Twin()
    entries, output = written(twin)
    await entries.write([entry("a", 1)], [])
    await twin.ask("PUT", ("config",), {}, entry("a", 2))
    await entries.take_back()
    assert twin.values() == {"a": 2}
    assert "service-defaults/a stays in Consul: somebody has changed it meanwhile" in output.getvalue()


async def test_a_refusal_names_the_entry_and_at_the_end_holds_up_nothing() -> None:
    twin = Twin()
    entries, output = written(twin)
    await entries.write([entry("a", 1), entry("b", 1)], [])
    twin.refuses = "b"
    with pytest.raises(EntryRefused, match="Consul does not take service-defaults/b: .*Permission denied"):
        await entries.write([entry("b", 2)], [])
    await entries.take_back()
    assert twin.values() == {"b": 1}
    assert "service-defaults/b stays in Consul: /v1/config: Permission denied" in output.getvalue()
