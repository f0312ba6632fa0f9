"""The vocabulary of the field tables: what a value of a config entry may be, and how it is read back.

A struct is written as `{"PathExact? path_exact": TEXT}`: the name of the field; `?` when a zero value is left out of
what is read back, `!` when it is accepted and never shown; then the other spelling that a writer may use, if any. Any
case of a name is accepted as well. Source: the field tags of Consul's config entries, seen on 1.21.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Text:
    """A string. `go` is the name of its type in error texts."""

    go: str = "string"


@dataclass(frozen=True, slots=True)
class Whole:
    """An integer of `bits` bits. `go` is the name of its type in error texts."""

    go: str = "int"
    bits: int = 64
    signed: bool = True


@dataclass(frozen=True, slots=True)
class Flag:
    """A boolean."""


@dataclass(frozen=True, slots=True)
class Fraction:
    """A float of 32 bits."""


@dataclass(frozen=True, slots=True)
class Span:
    """A duration, nanoseconds inside. Read back as text (`1m0s`) or as an integer of nanoseconds."""

    text: bool = False


@dataclass(frozen=True, slots=True)
class Moment:
    """A time by RFC 3339. Accepted only to be dropped."""


@dataclass(frozen=True, slots=True)
class Bytes:
    """Bytes, written as a string and read back in base64."""


@dataclass(frozen=True, slots=True)
class Anything:
    """A value that Consul does not look into."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A list of values of one shape. None is the list that was never given."""

    of: Shape


@dataclass(frozen=True, slots=True)
class Table:
    """A map from text to values of one shape. None is the map that was never given."""

    of: Shape


@dataclass(frozen=True, slots=True)
class Optional:
    """A value that may be absent (None), which is not the same as zero."""

    of: Shape


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a struct. `omit`: left out when zero. `hidden`: accepted, never shown. `alias`: lower case or ""."""

    name: str
    shape: Shape
    omit: bool
    hidden: bool
    alias: str


class Struct:
    """Named fields in the order in which they are read back."""

    __slots__ = ("aliases", "fields")

    def __init__(self, fields: Mapping[str, Shape]) -> None:
        self.fields = tuple(_field(spelled, shape) for spelled, shape in fields.items())
        self.aliases = {field.alias: field.name.lower() for field in self.fields if field.alias}


Shape = Text | Whole | Flag | Fraction | Span | Moment | Bytes | Anything | Listing | Table | Optional | Struct


def _field(spelled: str, shape: Shape) -> Field:
    name, _, alias = spelled.partition(" ")
    return Field(name.rstrip("?!"), shape, name.endswith("?"), name.endswith("!"), alias)


TEXT = Text()
NUMBER = Whole()
FLAG = Flag()
COUNT = Whole("uint32", 32, signed=False)
LARGE = Whole("uint64", 64, signed=False)
TEXTS = Listing(TEXT)
LABELS = Table(TEXT)


def zero(shape: Shape) -> Any:
    """Return the zero value of a shape."""
    match shape:
        case Text():
            return ""
        case Flag():
            return False
        case Fraction():
            return 0.0
        case Whole() | Span():
            return 0
        case Struct():
            return {}
        case _:
            return None
