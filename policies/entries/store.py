"""The immutable set of all entries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Entry = Mapping[str, Any]
_SINGLE = {"mesh": "mesh", "proxy-defaults": "global"}


def entry_name(entry: Entry) -> str:
    """Return the name under which an entry is kept: `mesh` has none of its own."""
    return str(entry.get("Name") or _SINGLE.get(str(entry["Kind"]), ""))


class Entries:
    """Normalised entries by kind and name. Names are equal in any case; the spelling last written is shown."""

    __slots__ = ("_by_key",)

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._by_key = {(str(entry["Kind"]), entry_name(entry).lower()): entry for entry in entries}

    def get(self, kind: str, name: str) -> Entry | None:
        """Return the entry, or None."""
        return self._by_key.get((kind, name.lower()))

    def of_kind(self, kind: str) -> tuple[Entry, ...]:
        """Return the entries of a kind in the order of their names."""
        return tuple(self._by_key[key] for key in sorted(self._by_key) if key[0] == kind)

    def put(self, entry: Entry) -> Entries:
        """Return the set with this entry, in place of one with its kind and name."""
        return self._with({**self._by_key, (str(entry["Kind"]), entry_name(entry).lower()): entry})

    def delete(self, kind: str, name: str) -> Entries:
        """Return the set without an entry; the same set if there is none."""
        gone = (kind, name.lower())
        return self._with({key: entry for key, entry in self._by_key.items() if key != gone})

    @staticmethod
    def _with(by_key: dict[tuple[str, str], Entry]) -> Entries:
        entries = Entries()
        entries._by_key = by_key
        return entries

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Entries) and self._by_key == other._by_key

    def __hash__(self) -> int:
        return hash(frozenset(self._by_key))

    def __len__(self) -> int:
        return len(self._by_key)
