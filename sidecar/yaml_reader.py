"""Reading an operator's YAML so that every mistake is told at once, with file, line, field and what was expected.

A `Section` wraps one mapping of the document. Each getter takes a key off it, checks its type and returns a value of
that type; a wrong one is noted and a harmless stand-in returned, so that reading goes on to the next mistake. `done`
notes every key that nobody asked for. At the end the one list of problems decides.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from policies.durations import parse_duration
from policies.errors import ConfigError, EntryError, Problem

MAX_PORT = 65535
MAX_VALUES = 100_000
MAX_SECONDS = 2**63 / 1e9  # Go's longest duration
_PLAIN = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


def read_document(path: Path) -> Section:
    """Return the whole file as a section. Raise ConfigError when it cannot be read or is no mapping."""
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except OSError as error:
        raise ConfigError((Problem(str(path), error.strerror or str(error), "name a readable file"),)) from error
    except RecursionError as error:
        raise ConfigError((Problem(str(path), "nests too deep", "no field of ours needs that"),)) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        detail = getattr(error, "problem", None) or str(error)
        raise ConfigError((Problem(where, f"this is not YAML: {detail}"),)) from error
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError((Problem(f"{path}:1", "expected a mapping such as `service: {name: web}`"),))
    problems: list[Problem] = []
    if _size(str(path), node, problems, {}) > MAX_VALUES:
        problems.append(Problem(f"{path}:1", f"its aliases stand for more than {MAX_VALUES:,} values", "write it out"))
    if problems:
        raise ConfigError(tuple(problems))
    return Section(str(path), "", node, [])


def _size(file: str, node: yaml.Node, problems: list[Problem], sizes: dict[int, int]) -> int:
    """Return how many values a node stands for, and note those that no getter could read."""
    where = f"{file}:{node.start_mark.line + 1}"
    if id(node) not in sizes:
        sizes[id(node)] = -1  # under way
        size = 1
        match node:
            case yaml.MappingNode():
                for key, value in node.value:
                    if not isinstance(key, yaml.ScalarNode):
                        problems.append(Problem(where, "a key must be a single word"))
                    size += _size(file, key, problems, sizes) + _size(file, value, problems, sizes)
            case yaml.SequenceNode():
                size += sum(_size(file, element, problems, sizes) for element in node.value)
        _try(where, node, problems)
        sizes[id(node)] = size
    elif sizes[id(node)] < 0:
        problems.append(Problem(where, "holds itself", "write it out"))
    return min(abs(sizes[id(node)]), MAX_VALUES + 1)


def _try(where: str, node: yaml.Node, problems: list[Problem]) -> None:
    if node.tag.endswith(":merge"):
        return  # a key that is read with its mapping
    merges = isinstance(node, yaml.MappingNode) and any(key.value == "<<" for key, _ in node.value)
    if isinstance(node, yaml.ScalarNode) or merges or not node.tag.startswith(_PLAIN):
        try:
            _value(node)
        except (yaml.YAMLError, ValueError, TypeError, AttributeError, KeyError, IndexError, OverflowError) as error:
            detail = getattr(error, "problem", None) or str(error)
            problems.append(Problem(where, f"cannot be read: {detail}", "put text in quotes"))


@dataclass(slots=True)
class Section:
    """One mapping of the document. `problems` is shared by all sections of a document."""

    file: str
    path: str
    node: yaml.MappingNode
    problems: list[Problem]
    _asked: set[str] = field(default_factory=set)

    def has(self, key: str) -> bool:
        """Return whether the key stands there with a value."""
        found = self._find(key)
        return found is not None and _value(found) is not None

    def text(self, key: str, default: str = "", *, required: bool = False, choices: tuple[str, ...] = ()) -> str:
        """Return a string; numbers are taken as they are written."""
        found = self._find(key)
        if found is None or _value(found) is None:
            if required:
                self.note(key, "is missing", f"add `{key}: ...`")
            return default
        if not isinstance(found, yaml.ScalarNode):
            self.note(key, "expected text")
            return default
        if choices and found.value not in choices:
            self.note(key, f"{found.value!r} is not one of {', '.join(choices)}")
            return default
        return str(found.value)

    def port(self, key: str, default: int = 0, *, required: bool = False) -> int:
        """Return a port, 1 to 65535."""
        if required and not self.has(key):
            self.note(key, "is missing", f"add `{key}: 8080`")
            return default
        told = len(self.problems)
        number = self.number(key, default)
        if len(self.problems) == told and self.has(key) and not 1 <= number <= MAX_PORT:
            self.note(key, f"{number} is not a port", "give a number from 1 to 65535")
            return default
        return number

    def number(self, key: str, default: int = 0) -> int:
        """Return a whole number."""
        value = self._scalar(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int):
            self.note(key, f"expected a whole number, found {value!r}")
            return default
        return value

    def flag(self, key: str, *, default: bool = False) -> bool:
        """Return true or false."""
        value = self._scalar(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.note(key, f"expected true or false, found {value!r}")
            return default
        return value

    def duration(self, key: str, default: float) -> float:
        """Return seconds; written as a Go duration (`30s`) or a number of seconds."""
        value = self._scalar(key)
        if value is None:
            return default
        if isinstance(value, int | float) and not isinstance(value, bool):
            if abs(value) < MAX_SECONDS:
                return float(value)
            value = str(value)
        try:
            return parse_duration(value, key)
        except EntryError:
            self.note(key, f"{value!r} is not a duration", "write it as 5s, 1m30s or 250ms")
            return default

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of strings."""
        found = self._find(key)
        if found is None or _value(found) is None:
            return ()
        if not isinstance(found, yaml.SequenceNode):
            self.note(key, "expected a list")
            return ()
        if not all(isinstance(element, yaml.ScalarNode) for element in found.value):
            self.note(key, "expected a list of text")
            return ()
        return tuple(str(_value(element)) for element in found.value)

    def pairs(self, key: str) -> dict[str, str]:
        """Return a mapping of strings to strings."""
        value = self.plain(key)
        if value is None:
            return {}
        if not isinstance(value, dict) or any(isinstance(item, dict | list) for item in value.values()):
            self.note(key, "expected a mapping of names to text")
            return {}
        return {str(name): _as_written(item) for name, item in value.items()}

    def plain(self, key: str) -> object:
        """Return the value as plain data, for parts that are Consul's own and pass through unread."""
        found = self._find(key)
        return None if found is None else _value(found)

    def section(self, key: str) -> Section:
        """Return a nested mapping; a missing one reads as empty."""
        found = self._find(key)
        if found is None or _value(found) is None:
            mark = self.node.start_mark if found is None else found.start_mark
            found = yaml.MappingNode("tag:yaml.org,2002:map", [], start_mark=mark)
        elif not isinstance(found, yaml.MappingNode):
            self.note(key, "expected a mapping")
            found = yaml.MappingNode("tag:yaml.org,2002:map", [], start_mark=found.start_mark)
        return Section(self.file, self._field(key), found, self.problems)

    def sections(self, key: str) -> tuple[Section, ...]:
        """Return a list of mappings."""
        found = self._find(key)
        if found is None or _value(found) is None:
            return ()
        if not isinstance(found, yaml.SequenceNode):
            self.note(key, "expected a list of mappings")
            return ()
        sections = []
        for position, element in enumerate(found.value):
            where = f"{self._field(key)}[{position}]"
            if isinstance(element, yaml.MappingNode):
                sections.append(Section(self.file, where, element, self.problems))
            else:
                line = element.start_mark.line + 1
                self.problems.append(Problem(f"{self.file}:{line}: {where}", "expected a mapping"))
        return tuple(sections)

    def note(self, key: str, message: str, fix: str = "") -> None:
        """Keep a problem of this key."""
        found = self._find(key) if key else None
        line = (found or self.node).start_mark.line + 1
        self.problems.append(Problem(f"{self.file}:{line}: {self._field(key)}", message, fix))

    def done(self) -> None:
        """Note every key that nobody asked for, with the likeliest spelling that somebody did."""
        seen: set[str] = set()
        for key_node, _ in self.node.value:
            key = str(key_node.value)
            where = f"{self.file}:{key_node.start_mark.line + 1}: {self._field(key)}"
            if key in seen:
                self.problems.append(Problem(where, "stands here twice", "keep one of them"))
            elif key not in self._asked:
                near = difflib.get_close_matches(key, self._asked, 1)
                fix = f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(sorted(self._asked))}"
                self.problems.append(Problem(where, "is not a known field", fix))
            seen.add(key)

    def raise_problems(self) -> None:
        """Raise ConfigError with every problem of the document, if there is any."""
        if self.problems:
            raise ConfigError(tuple(self.problems))

    def _find(self, key: str) -> yaml.Node | None:
        self._asked.add(key)
        return next((value for name, value in self.node.value if name.value == key), None)

    def _scalar(self, key: str) -> object:
        found = self._find(key)
        if found is None:
            return None
        if not isinstance(found, yaml.ScalarNode):
            self.note(key, "expected a single value")
            return None
        return _value(found)

    def _field(self, key: str) -> str:
        return ".".join(part for part in (self.path, key) if part)


def _value(node: yaml.Node) -> object:
    loader = yaml.SafeLoader("")
    try:
        loader.constructed_objects = {}
        return loader.construct_object(node, deep=True)
    finally:
        loader.dispose()


def _as_written(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
