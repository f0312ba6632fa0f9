"""Service definitions in files, as `consul services register` reads them: `service { ... }`, `services { ... }`.

Fields have the snake_case names of the agent's configuration; the CamelCase of its HTTP API is taken too. Types are
strict, as there: no number for a string. Every mistake of a file is told, with its line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lictor.dev.consul.decoding import DURATION, FLAG, FREE, INTEGER, TEXT
from lictor.dev.consul.definitions import GATEWAYS
from lictor.dev.consul.shapes import SERVICE
from lictor.documents import Document
from lictor.hcl import without_blocks
from policies.durations import parse_duration
from policies.entries import DecodeError, decode_entry
from policies.errors import ConfigError, EntryError, Problem

Json = dict[str, Any]
KINDS = ("connect-proxy", *sorted(GATEWAYS))
_IN_CHECKS = {"id": "CheckID"}  # the file's name for what the API calls otherwise
_PASSED_OVER = frozenset({"serviceid", "token"})  # of a check: the service's own hold
_TYPES = {TEXT: (str, "a text in quotes"), INTEGER: (int, "a number"), FLAG: (bool, "true or false")}


@dataclass(frozen=True, slots=True)
class Definitions:
    """What a file defines. `others` are its keys that are not about services: the agent's, maybe."""

    document: Document
    services: tuple[Json, ...]
    others: tuple[str, ...]


def read_definitions(document: Document) -> Definitions:
    """Return the services of a file, with the keys of the API. Raise ConfigError with every mistake."""
    reader = _Reader(document)
    found: dict[str, list[Json]] = {"services": [], "service": []}  # in this order, as Consul registers them
    others = []
    for key, value in document.data.items():
        if key.lower() == "service":
            found["service"] = [reader.read(key, value, SERVICE)]
        elif key.lower() == "services":
            found["services"] = reader.read(key, value, [SERVICE])
        else:
            others.append(key)
    services = [service for each in found.values() for service in each]
    if not services and not reader.problems:
        reader.complain("", "defines no service", 'write service { name = "web" }')
    if reader.problems:
        raise ConfigError(tuple(reader.problems))
    return Definitions(document, tuple(_completed(service) for service in services), tuple(others))


def _completed(service: Json) -> Json:
    """Return a service with the weights that a file means when it gives one of two."""
    weights = service.get("Weights")
    return service if weights is None else {**service, "Weights": {"Passing": 1, "Warning": 1, **weights}}


@dataclass(slots=True)
class _Reader:
    """Goes through a file beside the shape that it should have."""

    document: Document
    problems: list[Problem] = field(default_factory=list)

    def complain(self, path: str, message: str, fix: str = "") -> None:
        where = f"{self.document.place(path)}: {path}" if path else self.document.name
        self.problems.append(Problem(where, message, fix))

    def read(self, path: str, raw: Any, shape: Any) -> Any:
        if raw is None:
            return raw
        if shape in (FREE, {"": FREE}):
            return self._free(path, raw)
        if isinstance(shape, list):
            return self._list(path, raw, shape[0])
        if isinstance(shape, dict):
            return self._block(path, raw, shape)
        return self._scalar(path, raw, shape)

    def _free(self, path: str, raw: Any) -> Any:
        """Return what Consul does not look into. A `config` is unpacked as that of an entry is."""
        if not path.lower().endswith("config"):
            return without_blocks(raw)
        try:
            return decode_entry({"Kind": "proxy-defaults", "Config": raw}).get("Config")
        except DecodeError:
            self.complain(path, f"a block was expected, not {raw!r}")
            return None

    def _list(self, path: str, raw: Any, shape: Any) -> list[Any]:
        if not isinstance(raw, list):  # blocks are one already
            self.complain(path, f"a list was expected, not {raw!r}")
            return []
        return [self.read(f"{path}[{at}]", element, shape) for at, element in enumerate(raw)]

    def _block(self, path: str, raw: Any, shape: Mapping[str, Any]) -> Json:
        block = raw[0] if isinstance(raw, list) and len(raw) == 1 else raw
        if not isinstance(block, Mapping):
            several = isinstance(block, list) and len(block) > 1
            fix = "write a `services` block for each" if path.lower() == "service" else ""
            self.complain(path, "stands more than once" if several else f"a block was expected, not {block!r}", fix)
            return {}
        if "" in shape:
            return {key: self.read(f"{path}.{key}", value, shape[""]) for key, value in block.items()}
        return self._fields(path, block, shape)

    def _fields(self, path: str, block: Mapping[str, Any], shape: Mapping[str, Any]) -> Json:
        of_check = "CheckID" in shape
        names = {**{name.lower(): name for name in shape}, **(_IN_CHECKS if of_check else {})}
        found: Json = {}
        for key, value in block.items():
            bare = key.replace("_", "").lower()
            if bare in names:
                found[names[bare]] = self.read(f"{path}.{key}", value, shape[names[bare]])
            elif not (of_check and bare in _PASSED_OVER):
                self.complain(f"{path}.{key}", "is not a known field", f"known are {', '.join(sorted(shape))}")
        if of_check and not block:
            self.complain(path, "is a check of nothing", "write http, tcp, grpc, ttl, ...")
        if path.lower().endswith("service") and found.get("Kind") and found["Kind"] not in KINDS:
            self.complain(f"{path}.kind", f"{found['Kind']!r} is not a kind", f"write one of {', '.join(KINDS)}")
        return found

    def _scalar(self, path: str, raw: Any, shape: str) -> Any:
        if shape == DURATION:
            return self._duration(path, raw)
        kind, called = _TYPES[shape]
        if kind is int and isinstance(raw, float) and raw.is_integer():
            return int(raw)
        if not isinstance(raw, kind) or (kind is int and isinstance(raw, bool)):
            self.complain(path, f"{called} was expected, not {raw!r}")
        return raw

    def _duration(self, path: str, raw: Any) -> Any:
        try:
            if isinstance(raw, str):
                parse_duration(raw, path)
                return raw
        except EntryError:
            pass
        self.complain(path, f"{raw!r} is not a duration", 'write "10s"')
        return raw
