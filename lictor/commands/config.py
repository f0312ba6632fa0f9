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
from lictor.flags import Parser, Words, add, add_operator_flags, add_switch, unsigned, word
from policies.entries import KINDS, DecodeError, decode_entry, entry_name
from policies.entries.spelling import meant_field, meant_kind
from policies.errors import CatalogError, ConfigError, Problem

_EXAMPLES = """examples:
  lictor config write split.hcl
  lictor config read -kind service-splitter -name api
  lictor config list -kind service-intentions
  lictor config delete -kind service-splitter -name api
"""
_WRITE = """examples:
  lictor config write split.hcl                         from HCL or JSON
  lictor config write -                                 from the standard input
  lictor config write policies/*.hcl                    several, in this order; the first that is refused ends it
  lictor config write -cas -modify-index 0 split.hcl    only if there is none
  lictor config write -cas -modify-index 42 split.hcl   only if it is still as it was read at 42
"""
_READ = """examples:
  lictor config read -kind proxy-defaults -name global
  lictor config read -kind=service-router -name=api
"""
_LIST = """examples:
  lictor config list -kind service-intentions
  lictor config list -kind service-defaults -filter 'Protocol == "http"'
"""
_DELETE = """examples:
  lictor config delete -kind service-splitter -name api
  lictor config delete -filename split.hcl              the entry of that kind and name
  lictor config delete -cas -modify-index 42 -kind mesh -name mesh
"""
_ESCAPED = re.compile("[<>&\u2028\u2029]")  # signs that Go's JSON writes as \\u003c


def add_to(words: Words) -> None:
    """Add the word and what it may be followed by."""
    below = word(words, "config", "write, read, list and delete config entries", _EXAMPLES, wrong_input=1)
    actions = below.add_subparsers(dest="action", required=True, metavar="write | read | list | delete")
    write = word(actions, "write", "create or update entries", _WRITE, wrong_input=1)
    write.add_argument("files", nargs="+", metavar="FILE", help="HCL or JSON; - is the standard input")
    _add_cas(write)
    write.set_defaults(run=_write)
    read = word(actions, "read", "show an entry", _READ, wrong_input=1)
    _add_names(read)
    read.set_defaults(run=_read)
    listing = word(actions, "list", "list the names of a kind", _LIST, wrong_input=1)
    add(listing, "kind", default="", metavar="KIND", help="the kind of the entries")
    add(listing, "filter", default="", metavar="EXPRESSION", help="go-bexpr, where the server knows it")
    listing.set_defaults(run=_list)
    delete = word(actions, "delete", "delete an entry", _DELETE, wrong_input=1)
    _add_names(delete)
    add(delete, "filename", default="", metavar="FILE", help="the kind and the name are those of this file")
    _add_cas(delete)
    delete.set_defaults(run=_delete)
    for parser in (write, read, listing, delete):
        add_operator_flags(parser)


def _add_names(parser: Parser) -> None:
    add(parser, "kind", default="", metavar="KIND", help="the kind of the entry")
    add(parser, "name", default="", metavar="ENTRY", help="its name")


def _add_cas(parser: Parser) -> None:
    add_switch(parser, "cas", "only if the entry was not changed since -modify-index")
    add(parser, "modify-index", type=unsigned, default=0, metavar="N", help="with -cas: the ModifyIndex that was read")


def _write(arguments: argparse.Namespace, environment: Environment) -> int:
    ask = Asked(arguments, environment)
    entries: list[tuple[Document, dict[str, Any]]] = []
    for name in arguments.files:
        document = read_file(name)
        try:
            entries.append((document, _entry(document)))
        except ConfigError as error:
            return complain(f"Failed to decode config entry input: {error}")
    query = {"cas": str(arguments.modify_index)} if arguments.cas else {}
    for document, entry in entries:
        title = f"{entry['Kind']}/{entry_name(entry)}"
        try:
            written = ask("PUT", "config", query=query, body=entry)
        except CatalogError as error:
            return complain(f"Error writing config entry {title} of {document.at(error.detail)}: {told(error)}")
        if written is not True:
            return complain(f"Config entry not updated: {title}")
        say(f"Config entry written: {title}")
    return 0


def _entry(document: Document) -> dict[str, Any]:
    """Return the entry of a file. Raise ConfigError that names the place of the field."""
    try:
        entry = decode_entry(document.data)
    except DecodeError as error:
        raise ConfigError(_mistakes(document, error)) from error
    if path := _null_in_list(entry):
        fix = "Consul 1.21 ends on it, and again at each start"
        raise ConfigError((Problem(f"{document.place(path)}: {path}", "null in a list", fix),))
    return entry


def _mistakes(document: Document, error: DecodeError) -> tuple[Problem, ...]:
    """Return Consul's words for what is wrong with an entry, with places and what was probably meant."""
    kind = str(document.data.get("Kind") or document.data.get("kind") or "")
    if error.unknown:
        return tuple(
            Problem(document.place(key), said, "" if "enterprise" in said else meant_field(kind, key))
            for key, said in error.unknown.items()
        )
    text = str(error).strip()
    if not kind:
        return (Problem(document.name, text, 'write Kind = "service-defaults", or what else it is'),)
    if kind not in KINDS:
        return (Problem(document.place("Kind"), text, meant_kind(kind)),)
    return (Problem(document.at(text), text),)


def _null_in_list(tree: Any, path: str = "") -> str:
    """Return where a list holds a null, or ""."""
    if isinstance(tree, dict):
        below = ((value, f"{path}.{key}" if path else key) for key, value in tree.items())
    elif isinstance(tree, list):
        below = ((value, f"{path}[{at}]") for at, value in enumerate(tree))
        if None in tree:
            return f"{path}[{tree.index(None)}]"
    else:
        return ""
    return next((found for value, where in below if (found := _null_in_list(value, where))), "")


def _named(arguments: argparse.Namespace) -> tuple[str, str]:
    """Return kind and name. Raise ConfigError for a file that does not tell them."""
    if getattr(arguments, "filename", ""):
        entry = _entry(read_file(arguments.filename))
        return entry["Kind"], entry_name(entry)
    return arguments.kind, arguments.name


def _unnamed(arguments: argparse.Namespace) -> str:
    """Return what is to be complained of about -kind and -name."""
    if getattr(arguments, "filename", ""):
        return "-filename names kind and name: give no -kind and no -name" if arguments.kind or arguments.name else ""
    if not arguments.kind:
        return f"Must specify the -kind{' or -filename' if hasattr(arguments, 'filename') else ''} parameter"
    return "" if arguments.name else "Must specify the -name parameter"


def _read(arguments: argparse.Namespace, environment: Environment) -> int:
    if wrong := _unnamed(arguments):
        return complain(wrong)
    kind, name = arguments.kind, arguments.name
    if kind not in KINDS:
        return complain(f"Error reading config entry {kind}/{name}: invalid config entry kind: {kind}")
    try:
        entry: Mapping[str, Any] = Asked(arguments, environment)("GET", "config", kind, name)
    except CatalogError as error:
        return complain(f"Error reading config entry {kind}/{name}: {told(error)}")
    shown = {key: value for key, value in entry.items() if key != "Hash" and value != ""}
    text = json.dumps(shown, indent=4, ensure_ascii=False)
    say(_ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text))
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
    if wrong := _unnamed(arguments):
        return complain(wrong)
    if arguments.modify_index and not arguments.cas:
        return complain("Cannot specify -modify-index without -cas")
    if arguments.cas and not arguments.modify_index:
        return complain("Must specify a -modify-index greater than 0 with -cas")
    kind, name = _named(arguments)
    query = {"cas": str(arguments.modify_index)} if arguments.cas else {}
    try:
        gone = Asked(arguments, environment)("DELETE", "config", kind, name, query=query)
    except CatalogError as error:
        return complain(f"Error deleting config entry {kind}/{name}: {told(error)}")
    if arguments.cas and gone is not True:
        return complain(f"Config entry not deleted: {kind}/{name}")
    say(f"Config entry deleted: {kind}/{name}")
    return 0
