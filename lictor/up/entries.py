"""The config entries that FILE.yaml names: files and folders of HCL or JSON, or written out in the file itself.

Read and checked as Consul would, each mistake with its line. `refusals` asks further what Consul would say to the
entries together, the made ones included, before there is a Consul to ask.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lictor.documents import read_file
from policies.discovery import check_graph
from policies.entries import DecodeError, Entries, decode_entry, entry_name, normalise_entry
from policies.errors import ConfigError, EntryError, Problem
from sidecar.yaml_reader import Section

Json = dict[str, Any]
_SUFFIXES = (".hcl", ".json")
_WORDS = re.compile(r"[A-Za-z_]\w+")
_COUNT = re.compile(r"\d+ errors? occurred: \* ")


@dataclass(frozen=True, slots=True)
class Located:
    """An entry as Consul keeps it, and where it stands."""

    entry: Json
    place: str


def read_entries(document: Section, base: Path) -> tuple[Located, ...]:
    """Return every entry named by `config`. Mistakes are noted."""
    raw = document.plain("config")
    node = next((value for key, value in document.node.value if key.value == "config"), None)
    if raw is None or node is None:
        return ()
    elements = list(node.value) if isinstance(node, yaml.SequenceNode) else [node]
    found: list[Located] = []
    for element in elements:
        if isinstance(element, yaml.MappingNode):
            found += _inline(document, element)
        elif isinstance(element, yaml.ScalarNode) and element.value:
            found += _files(document, element, base)
        else:
            place = f"{document.file}:{element.start_mark.line + 1}: config"
            document.problems.append(Problem(place, "expected a path or an entry", "write `config: [policies/]`"))
    _check_twice(document, found)
    return tuple(found)


def _check_twice(document: Section, found: Sequence[Located]) -> None:
    first: dict[tuple[str, str], str] = {}
    for one in found:
        key = (str(one.entry["Kind"]), entry_name(one.entry).lower())
        if key in first:
            text = f"{title(one.entry)} is written in {first[key]} already"
            document.problems.append(Problem(one.place, text, "keep one of them"))
        first.setdefault(key, one.place)


def title(entry: Json) -> str:
    """Return `kind/name`."""
    return f"{entry['Kind']}/{entry_name(entry)}"


# --- where they stand ----------------------------------------------------------------------------------------------


def _files(document: Section, element: yaml.ScalarNode, base: Path) -> list[Located]:
    path = base / element.value
    where = f"{document.file}:{element.start_mark.line + 1}: config"
    if not path.exists():
        problem = Problem(where, f"{path} is not there", "name a file or folder of HCL or JSON, relative to this file")
        document.problems.append(problem)
        return []
    if not path.is_dir():
        return _file(document, path)
    files = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES and file.is_file())
    if not files:
        fix = "put entries there, one a file, or take it out"
        document.problems.append(Problem(where, f"{path} holds no .hcl and no .json", fix))
    return [one for file in files for one in _file(document, file)]


def _file(document: Section, file: Path) -> list[Located]:
    try:
        given = read_file(str(file))
    except ConfigError as error:
        fix = "close every quote and bracket, and quote text"
        document.problems += [Problem(one.where, one.message, one.fix or fix) for one in error.problems]
        return []
    data = json.loads(json.dumps(given.data))
    return _checked(document, data, given.line_of, str(file))


def _inline(document: Section, node: yaml.MappingNode) -> list[Located]:
    holder = yaml.MappingNode(node.tag, [(yaml.ScalarNode("tag:yaml.org,2002:str", "entry"), node)], node.start_mark)
    try:
        data = json.loads(json.dumps(Section(document.file, "", holder, []).plain("entry")))
    except (TypeError, ValueError):
        text = "holds something that is no text, number, list or mapping"
        place = f"{document.file}:{node.start_mark.line + 1}: config"
        document.problems.append(Problem(place, text, "quote dates and other special values"))
        return []
    first = node.start_mark.line + 1
    return _checked(document, data, lambda key: _line_in(node, key), document.file, first)


def _line_in(node: yaml.Node, key: str) -> int:
    """Return the line on which a key stands first below a node, 0 when there is none."""
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            if str(name.value) == key:
                return int(name.start_mark.line) + 1
            line = _line_in(value, key)
            if line:
                return line
    elif isinstance(node, yaml.SequenceNode):
        return next((line for value in node.value if (line := _line_in(value, key))), 0)
    return 0


# --- what is wrong with them ---------------------------------------------------------------------------------------


def _checked(document: Section, data: Json, line_of: Callable[[str], int], file: str, first: int = 1) -> list[Located]:
    """Return the entry, or note why Consul would not take it, at the line of the key that its text names."""
    kind = data.get("Kind", data.get("kind", "?"))
    name = data.get("Name", data.get("name", ""))
    try:
        entry = normalise_entry(decode_entry(data))
    except (DecodeError, EntryError) as error:
        text = _COUNT.sub("", " ".join(str(error).split()))
        named = next(((word, line) for word in _WORDS.findall(text) if (line := line_of(word))), ("", 0))
        place = f"{file}:{named[1] or line_of('Kind') or line_of('kind') or first}"
        place += f": {named[0]}" if named[0] else ""
        fix = f"mend the entry {kind}/{name}; this is what Consul says to it"
        document.problems.append(Problem(place, text, fix))
        return []
    return [Located(entry, f"{file}:{line_of('Kind') or line_of('kind') or first}")]


def refusals(entries: Sequence[Json], located: Sequence[Located], file: str) -> list[Problem]:
    """Return what Consul would refuse when the entries are written one after the other. `file` made the others."""
    places = {title(one.entry): one.place for one in located}
    written, problems = Entries(), []
    for entry in entries:
        name = title(entry)
        try:
            normal = normalise_entry(decode_entry(json.loads(json.dumps(entry))))
            after = written.put(normal)
            check_graph(written, after, str(normal["Kind"]), entry_name(normal), trust_domain="lictor.up")
            written = after
        except EntryError as error:
            fix = "mend it or an entry that it depends on; this is what Consul would say"
            text = f"{name} would be refused: {' '.join(str(error).split())}"
            problems.append(Problem(places.get(name, f"{file}: {name}, made by lictor up"), text, fix))
    return problems
