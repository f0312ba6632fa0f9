"""`lictor intention`: who may call whom, as `consul intention` has it.

Rows are written through the API of the stock command line. It refuses a destination that has a config entry; there the
row goes through `/v1/connect/intentions/exact`, which does not, but knows no metadata.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from lictor.commands.agent import Asked, Environment, complain, say, told
from lictor.documents import Document, read_file
from lictor.flags import Parser, Words, add, add_operator_flags, add_switch, pair, word
from policies.errors import CatalogError, ConfigError, Problem

Row = Mapping[str, Any]
_EXAMPLES = """examples:
  lictor intention create web db                        web may call db
  lictor intention create -deny -replace web db         now it may not
  lictor intention check web db                         Allowed (exit code 0) or Denied (1)
  lictor intention match db                             who is asked about db, in order of precedence
  lictor intention list
  lictor intention delete web db
"""
_CREATE = """examples:
  lictor intention create web db                        web may call db
  lictor intention create -deny '*' db                  nobody else may
  lictor intention create -replace -deny web db         in place of the one that is there
  lictor intention create -meta ticket=42 web db
  lictor intention create -file web-db.json web-api.hcl
"""
_MATCH = """examples:
  lictor intention match db                             what is asked when db is called
  lictor intention match -source web                    what is asked when web calls
"""
_CHECK = """examples:
  lictor intention check web db                         Allowed (exit code 0) or Denied (1); 2 is a failure
"""
_GET = """examples:
  lictor intention get web db
  lictor intention get e7f0c8a4-2d51-4a6b-9f3e-5b1a7c0d9e22
"""
_DELETE = """examples:
  lictor intention delete web db
  lictor intention delete e7f0c8a4-2d51-4a6b-9f3e-5b1a7c0d9e22
"""
_LIST = """examples:
  lictor intention list
"""
_BOTH = "command requires exactly 1 or 2 arguments"
_FIELDS = ("SourceName", "SourceType", "DestinationName", "Action", "Permissions", "Description", "Meta")
_NOT_FOUND, _LEGACY = 404, "cannot use legacy intention API"
_PAIR = 2


def add_to(words: Words) -> None:
    """Add the word and what it may be followed by."""
    below = word(words, "intention", "say who may call whom", _EXAMPLES, wrong_input=1)
    actions = below.add_subparsers(dest="action", required=True, metavar="create | check | match | list | get | delete")
    create = word(actions, "create", "create intentions", _CREATE, wrong_input=1)
    add_switch(create, "allow", "allow, as without a flag")
    add_switch(create, "deny", "deny")
    add_switch(create, "replace", "in place of one that is there")
    add_switch(create, "file", "the arguments are files with one row each, in JSON or HCL", dest="from_files")
    add(create, "meta", type=pair, action="append", default=[], metavar="KEY=VALUE", help="may be repeated")
    create.set_defaults(run=_create)
    match = word(actions, "match", "list the intentions that concern a service", _MATCH, wrong_input=1)
    add_switch(match, "source", "as the caller")
    add_switch(match, "destination", "as the one that is called, as without a flag")
    match.set_defaults(run=_match)
    check = word(actions, "check", "tell whether a tcp connection would be allowed", _CHECK, wrong_input=2)
    check.set_defaults(run=_check)
    get = word(actions, "get", "show an intention", _GET, wrong_input=1)
    get.set_defaults(run=_get)
    delete = word(actions, "delete", "delete an intention", _DELETE, wrong_input=1)
    delete.set_defaults(run=_delete)
    listing = word(actions, "list", "list all intentions", _LIST, wrong_input=1)
    listing.set_defaults(run=_list)
    create.add_argument("names", nargs="*", metavar="NAME", help="source and destination; files with -file")
    _add_names(match, "the service")
    _add_names(check, "source and destination")
    _add_names(get, "source and destination, or an ID")
    _add_names(delete, "source and destination, or an ID")
    for parser in (create, match, check, get, delete, listing):
        add_operator_flags(parser)


def _add_names(parser: Parser, text: str) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help=text)


def _service(name: str) -> str:
    """Return a service's name without `default/`. Raise ConfigError for what Consul Enterprise alone has."""
    *places, bare = name.split("/")
    if name.startswith("peer:"):
        raise ConfigError((Problem(name, "cluster peering is not supported"),))
    if any(place != "default" for place in places):
        raise ConfigError((Problem(name, "namespaces and partitions are Consul Enterprise", f"write {bare}"),))
    return bare


def _ends(names: Sequence[str]) -> dict[str, str]:
    source, destination = names
    return {"source": _service(source), "destination": _service(destination)}


# --- create --------------------------------------------------------------------------------------------------------


def _create(arguments: argparse.Namespace, environment: Environment) -> int:
    if arguments.allow and arguments.deny:
        return complain("Only one of -allow or -deny may be specified.")
    if arguments.from_files:
        if not arguments.names:
            return complain("Error: Must specify at least one file")
        rows = [_row_of(read_file(name)) for name in arguments.names]
    elif len(arguments.names) != _PAIR:
        return complain("Error: Must specify two arguments: source and destination")
    else:
        ends = _ends(arguments.names)
        row: dict[str, Any] = {"SourceName": ends["source"], "DestinationName": ends["destination"]}
        row |= {"SourceType": "consul", "Action": "deny" if arguments.deny else "allow"}
        rows = [{**row, "Meta": dict(arguments.meta)} if arguments.meta else row]
    ask = Asked(arguments, environment)
    return next((code for row in rows if (code := _write(ask, row, replace=arguments.replace))), 0)


def _row_of(document: Document) -> dict[str, Any]:
    """Return the row in a file. Raise ConfigError with every mistake."""
    problems: list[Problem] = []
    names = {name.lower(): name for name in _FIELDS}
    row: dict[str, Any] = {"SourceType": "consul"}
    for key, value in document.data.items():
        name = names.get(key.replace("_", "").lower())
        if name is None:
            where = f"{document.place(key)}: {key}"
            problems.append(Problem(where, "is not a field of an intention", f"known are {', '.join(_FIELDS)}"))
        elif name not in {"Permissions", "Meta"} and not isinstance(value, str):
            problems.append(Problem(f"{document.place(key)}: {key}", f"a text was expected, not {value!r}"))
        else:
            row[name] = value
    problems += [
        Problem(document.name, f"{name} is missing") for name in ("SourceName", "DestinationName") if not row.get(name)
    ]
    if problems:
        raise ConfigError(tuple(problems))
    return row


def _write(ask: Asked, row: Row, *, replace: bool) -> int:
    try:
        held = _exact(ask, _ends((row["SourceName"], row["DestinationName"]))) if replace else None
        _put(ask, row, held)
    except CatalogError as error:
        return complain(f'Error creating intention "{_title(row)}": {told(error)}')
    if held is None:
        say(f"Created: {_title(row)}")
    return 0


def _put(ask: Asked, row: Row, held: Row | None) -> None:
    """Write a row beside the others, or in place of one."""
    try:
        if held is None and not row.get("Permissions"):
            ask("POST", "connect", "intentions", body=row)
            return
        if held is not None and held.get("ID") and not row.get("Permissions"):
            ask("PUT", "connect", "intentions", held["ID"], body=row)
            return
    except CatalogError as error:
        if _LEGACY not in error.detail or row.get("Meta"):
            raise
    ends = {"source": row["SourceName"], "destination": row["DestinationName"]}
    if held is None and _exact(ask, ends) is not None:
        raise CatalogError(_title(row), f'Sources defines "{row["SourceName"]}" already; use -replace')
    kept = ("Action", "Permissions", "Description", "SourceType")
    ask("PUT", "connect", "intentions", "exact", query=ends, body={key: row[key] for key in kept if row.get(key)})


def _exact(ask: Asked, ends: Mapping[str, str]) -> Row | None:
    try:
        found: Row = ask("GET", "connect", "intentions", "exact", query=ends)
    except CatalogError as error:
        if error.status == _NOT_FOUND:
            return None
        raise
    return found


def _title(row: Row) -> str:
    source = f"peer:{row['SourcePeer']}/{row['SourceName']}" if row.get("SourcePeer") else row["SourceName"]
    return f"{source} => {row['DestinationName']} ({_action(row)})"


def _action(row: Row) -> str:
    count = len(row.get("Permissions") or ())
    return f"{count} permission{'s' if count != 1 else ''}" if count else str(row.get("Action") or "")


# --- the others ----------------------------------------------------------------------------------------------------


def _check(arguments: argparse.Namespace, environment: Environment) -> int:
    if len(arguments.names) != _PAIR:
        return complain("Error: command requires exactly two arguments: src and dst", 2)
    query = {**_ends(arguments.names), "source-type": "consul"}
    try:
        answer = Asked(arguments, environment)("GET", "connect", "intentions", "check", query=query)
    except CatalogError as error:
        return complain(f"Error checking the connection: {told(error)}", 2)
    say("Allowed" if answer["Allowed"] else "Denied")
    return 0 if answer["Allowed"] else 1


def _match(arguments: argparse.Namespace, environment: Environment) -> int:
    if arguments.source and arguments.destination:
        return complain("Error: only one of -source or -destination may be specified")
    if len(arguments.names) != 1:
        return complain("Error: command requires exactly one argument: src or dst")
    name, by = _service(arguments.names[0]), "source" if arguments.source else "destination"
    try:
        answer = Asked(arguments, environment)("GET", "connect", "intentions", "match", query={"by": by, "name": name})
    except CatalogError as error:
        return complain(f"Error matching the connection: {told(error)}")
    for row in answer.get(name) or ():
        say(_title(row))
    return 0


def _get(arguments: argparse.Namespace, environment: Environment) -> int:
    if len(arguments.names) not in {1, _PAIR}:
        return complain(_BOTH)
    ask = Asked(arguments, environment)
    try:
        if len(arguments.names) == 1:
            row: Row | None = ask("GET", "connect", "intentions", arguments.names[0])
        else:
            row = _exact(ask, _ends(arguments.names))
    except CatalogError as error:
        if error.status != _NOT_FOUND:
            return complain(f"Error reading the intention: {told(error)}")
        row = None
    if row is None:
        ends = [f'{name} "{value}"' for name, value in zip(("source", "destination"), arguments.names, strict=False)]
        sought = f'ID "{arguments.names[0]}"' if len(ends) == 1 else " and ".join(ends)
        return complain(f"Intention not found with {sought}")
    _show(row)
    return 0


def _show(row: Row) -> None:
    lines = [("Source", row["SourceName"]), ("Destination", row["DestinationName"])]
    lines += [(name, row[name]) for name in ("Action", "ID", "Description") if row.get(name)]
    lines += [(f"Meta[{key}]", value) for key, value in sorted((row.get("Meta") or {}).items())]
    if row.get("ID"):  # only rows with an ID have a time of their own
        lines.append(("Created At", datetime.fromisoformat(row["CreatedAt"]).strftime("%A, %d-%b-%y %H:%M:%S UTC")))
    for name, text in lines:
        say(f"{name + ':':<13} {text}")
    for permission in row.get("Permissions") or ():
        say(f"{'Permission:':<13} {json.dumps(permission)}")


def _delete(arguments: argparse.Namespace, environment: Environment) -> int:
    if len(arguments.names) not in {1, _PAIR}:
        return complain(_BOTH)
    ask = Asked(arguments, environment)
    try:
        if len(arguments.names) == 1:
            ask("DELETE", "connect", "intentions", arguments.names[0])
        else:
            ask("DELETE", "connect", "intentions", "exact", query=_ends(arguments.names))
    except CatalogError as error:
        return complain(f"Error deleting the intention: {told(error)}")
    say("Intention deleted.")
    return 0


def _list(arguments: argparse.Namespace, environment: Environment) -> int:
    try:
        rows: Sequence[Row] = Asked(arguments, environment)("GET", "connect", "intentions")
    except CatalogError as error:
        return complain(f"Failed to retrieve the intentions list: {told(error)}")
    if not rows:
        return complain("There are no intentions.", 2)
    table = [("ID", "Source", "Action", "Destination", "Precedence")]
    table += [
        (str(row.get("ID") or ""), row["SourceName"], _action(row), row["DestinationName"], str(row["Precedence"]))
        for row in rows
    ]
    widths = [max(len(line[at]) for line in table) for at in range(len(table[0]))]
    for line in table:
        say("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    return 0
