"""`lictor config`: config entries, as `consul config` has them.

Source: Consul's documentation of `consul config`, and its outputs as they were seen.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from typing import Any

from lictor.commands.agent import Asked, Environment, complain, say, told
from lictor.documents import Document, read_file
from lictor.flags import Words, add, add_agent_flags, word
from policies.entries import DecodeError, decode_entry, entry_name
from policies.errors import CatalogError, ConfigError

_EXAMPLES = """examples:
  lictor config write split.hcl                         write an entry from HCL or JSON, - is the standard input
  lictor config write policies/*.hcl                    several, in this order; the first that is refused ends it
  lictor config read -kind service-splitter -name api
  lictor config list -kind service-intentions
  lictor config delete -kind service-splitter -name api
"""
_KEY = re.compile(r'invalid config key "?([\w.\[\]]+)"?')


def add_to(words: Words) -> None:
    """Add the word and what it may be followed by."""
    below = word(words, "config", "write, read, list and delete config entries", _EXAMPLES).add_subparsers(
        dest="action", required=True, metavar="write | read | list | delete"
    )
    write = word(below, "write", "create or update entries", _EXAMPLES)
    write.add_argument("files", nargs="+", metavar="FILE", help="HCL or JSON; - is the standard input")
    add(write, "cas", action="store_true", help="only if the entry was not changed since -modify-index")
    add(write, "modify-index", type=int, default=0, metavar="N", help="with -cas; 0 is: only if there is none")
    write.set_defaults(run=_write)
    for name, text, run in (("read", "show an entry", _read), ("delete", "delete an entry", _delete)):
        parser = word(below, name, text, _EXAMPLES)
        add(parser, "kind", default="", metavar="KIND")
        add(parser, "name", default="", metavar="NAME")
        parser.set_defaults(run=run)
        if name == "delete":
            add(parser, "filename", default="", metavar="FILE", help="the kind and the name are those of this file")
            add(parser, "cas", action="store_true", help="only if the entry was not changed since -modify-index")
            add(parser, "modify-index", type=int, default=0, metavar="N", help="with -cas")
    listing = word(below, "list", "list the names of a kind", _EXAMPLES)
    add(listing, "kind", default="", metavar="KIND")
    add(listing, "filter", default="", metavar="EXPRESSION", help="go-bexpr, where the server knows it")
    listing.set_defaults(run=_list)
    for parser in below.choices.values():
        add_agent_flags(parser)


def _write(arguments: argparse.Namespace, environment: Environment) -> int:
    ask = Asked(arguments, environment)
    entries: list[tuple[Document, dict[str, Any]]] = []
    for name in arguments.files:
        document = read_file(name)
        try:
            entries.append((document, decode_entry(json.loads(json.dumps(document.data)))))
        except DecodeError as error:
            return complain(f"Failed to decode config entry input: {_placed(document, str(error))}")
    query = {"cas": str(arguments.modify_index)} if arguments.cas else {}
    for document, entry in entries:
        title = f"{entry['Kind']}/{entry_name(entry)}"
        try:
            written = ask("PUT", "config", query=query, body=entry)
        except CatalogError as error:
            return complain(f"Error writing config entry {title} of {document.name}: {told(error)}")
        if written is not True:
            return complain(f"Config entry not updated: {title}")
        say(f"Config entry written: {title}")
    return 0


def _placed(document: Document, text: str) -> str:
    """Return an error with the place of the key that it names."""
    found = _KEY.search(text)
    place = document.place(re.sub(r"\[\d+\]", "", found[1]).rpartition(".")[2]) if found else document.name
    return f"{place}: {text.strip()}"


def _named(arguments: argparse.Namespace) -> tuple[str, str] | int:
    """Return kind and name, or the exit code after a complaint."""
    if getattr(arguments, "filename", ""):
        try:
            entry = decode_entry(json.loads(json.dumps(read_file(arguments.filename).data)))
        except (DecodeError, ConfigError) as error:
            return complain(f"Failed to decode config entry input: {error}")
        return entry["Kind"], entry_name(entry)
    for name in ("kind", "name"):
        if not getattr(arguments, name):
            return complain(f"Must specify the -{name} parameter")
    return arguments.kind, arguments.name


def _read(arguments: argparse.Namespace, environment: Environment) -> int:
    named = _named(arguments)
    if isinstance(named, int):
        return named
    try:
        entry: Mapping[str, Any] = Asked(arguments, environment)("GET", "config", *named)
    except CatalogError as error:
        return complain(f"Error reading config entry {'/'.join(named)}: {told(error)}")
    say(json.dumps({key: value for key, value in entry.items() if key != "Hash"}, indent=4, ensure_ascii=False))
    return 0


def _list(arguments: argparse.Namespace, environment: Environment) -> int:
    if not arguments.kind:
        return complain("Must specify the -kind parameter")
    query = {"filter": arguments.filter} if arguments.filter else {}
    try:
        entries = Asked(arguments, environment)("GET", "config", arguments.kind, query=query)
    except CatalogError as error:
        return complain(f'Error listing config entries for kind "{arguments.kind}": {told(error)}')
    for entry in entries:
        say(entry_name(entry))
    return 0


def _delete(arguments: argparse.Namespace, environment: Environment) -> int:
    if arguments.cas and arguments.modify_index <= 0:
        return complain("Must specify a -modify-index greater than 0 with -cas")
    named = _named(arguments)
    if isinstance(named, int):
        return named
    query = {"cas": str(arguments.modify_index)} if arguments.cas else {}
    try:
        gone = Asked(arguments, environment)("DELETE", "config", *named, query=query)
    except CatalogError as error:
        return complain(f"Error deleting config entry {'/'.join(named)}: {told(error)}")
    if arguments.cas and gone is not True:
        return complain(f"Config entry not deleted: {'/'.join(named)}")
    say(f"Config entry deleted: {'/'.join(named)}")
    return 0
