"""Rows that are found by what they are of, in a time that does not grow with the table; and virtual addresses.

The catalog asks for "the rows of this node", "of this name": a table keeps such labels with every row, so ten thousand
instances cost a query for one of them nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any

Json = dict[str, Any]
Key = tuple[str, str]  # node in lower case, and the ID of a service or check
Label = tuple[str, ...]


class Rows(MutableMapping[Key, Json]):
    """A table by key whose rows carry labels. A row is never changed in place: it is replaced."""

    def __init__(self, labels: Callable[[Key, Json], Iterable[Label]], rows: Mapping[Key, Json] | None = None) -> None:
        self._labels = labels
        self._rows: dict[Key, Json] = {}
        self._by: dict[Label, set[Key]] = {}
        for key, row in (rows or {}).items():
            self[key] = row

    def __getitem__(self, key: Key) -> Json:
        return self._rows[key]

    def __setitem__(self, key: Key, row: Json) -> None:
        held = self._rows.get(key)
        before = set(self._labels(key, held)) if held is not None else set()
        after = set(self._labels(key, row))
        self._rows[key] = row
        for label in before - after:
            self._unlabel(label, key)
        for label in after - before:
            self._by.setdefault(label, set()).add(key)

    def __delitem__(self, key: Key) -> None:
        row = self._rows.pop(key)
        for label in set(self._labels(key, row)):
            self._unlabel(label, key)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def _unlabel(self, label: Label, key: Key) -> None:
        keys = self._by[label]
        keys.discard(key)
        if not keys:
            del self._by[label]

    def of(self, *label: str) -> list[tuple[Key, Json]]:
        """Return the rows with a label, by key."""
        return [(key, self._rows[key]) for key in sorted(self._by.get(label, ()))]

    def any_of(self, *label: str) -> bool:
        """Return whether a row has this label."""
        return label in self._by

    def names(self, first: str) -> list[str]:
        """Return the second words of all labels that begin so."""
        return sorted(label[1] for label in self._by if label[0] == first)


def services_table(rows: Mapping[Key, Json] | None = None) -> Rows:
    """Return a table of services: by node, by name, by the service that a row of the mesh stands for, by kind."""
    return Rows(_service_labels, rows)


def _service_labels(key: Key, row: Json) -> Iterable[Label]:
    kind = row.get("Kind") or ""
    yield "node", key[0]
    yield "name", row["Service"].lower()
    yield "kind", kind
    native = bool(row["Connect"].get("Native"))
    to = row["Proxy"].get("DestinationServiceName", "") if kind == "connect-proxy" else row["Service"] if native else ""
    if to:
        yield "to", to.lower()
        yield "destination", to
    if not kind:
        yield "plain", row["Service"]
        if not native:
            yield "outside", row["Service"]


def checks_table(rows: Mapping[Key, Json] | None = None) -> Rows:
    """Return a table of checks: by node, by the service's ID on its node ("" for the node's own), by its name."""
    return Rows(_check_labels, rows)


def _check_labels(key: Key, row: Json) -> Iterable[Label]:
    yield "node", key[0]
    yield "service", key[0], row["ServiceID"]
    yield "name", str(row["ServiceName"]).lower()


class VirtualAddresses:
    """The addresses that stand for services, given at the first need: the lowest that is free."""

    def __init__(self, held: Mapping[str, str] | None = None) -> None:
        self._held = dict(held or {})
        self._taken = set(self._held.values())
        self._lowest = 1  # no lower one is free

    def of(self, service: str) -> str:
        """Return the address of a service."""
        name = service.lower()
        if name not in self._held:
            while _address(self._lowest) in self._taken:
                self._lowest += 1
            self._held[name] = _address(self._lowest)
            self._taken.add(self._held[name])
        return self._held[name]

    def held(self, service: str) -> str:
        """Return the address of a service, or "" when it has none."""
        return self._held.get(service.lower(), "")

    def release(self, service: str) -> None:
        """Give an address back."""
        address = self._held.pop(service.lower(), None)
        if address is not None:
            self._taken.discard(address)
            self._lowest = min(self._lowest, _number(address))

    def dump(self) -> dict[str, str]:
        """Return the addresses by service."""
        return dict(self._held)


def _address(number: int) -> str:
    return f"240.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def _number(address: str) -> int:
    _, first, second, third = (int(part) for part in address.split("."))
    return first << 16 | second << 8 | third
