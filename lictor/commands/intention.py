"""`lictor intention`: who may call whom, as `consul intention` has it.

Rows are written one by one (`/v1/connect/intentions/exact`), so that they may stand beside those of a config entry; the
stock command line uses an older API that refuses that.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

from lictor.commands.agent import Asked, Environment, complain, say, told
from lictor.documents import read_file
from lictor.flags import Words, add, add_agent_flags, word
from policies.errors import CatalogError

Row = Mapping[str, Any]
_EXAMPLES = """examples:
  lictor intention create web db                        web may call db
  lictor intention create -deny -replace web db         now it may not
  lictor intention check web db                         Allowed (exit code 0) or Denied (1)
  lictor intention match db                             who is asked about db, in order of precedence
  lictor intention list
  lictor intention delete web db
"""
_BOTH = "command requires exactly 1 or 2 arguments"


def add_to(words: Words) -> None:
    """Add the word and what it may be followed by."""
    below = word(words, "intention", "say who may call whom", _EXAMPLES).add_subparsers(
        dest="action", required=True, metavar="create | check | match | list | get | delete"
    )
    create = word(below, "create", "create an intention", _EXAMPLES)
    add(create, "allow", action="store_true", help="allow, as without a flag")
    add(create, "deny", action="store_true", help="deny")
    add(create, "replace", action="store_true", help="in place of one that is there")
    add(
        create,
        "file",
        dest="from_files",
        action="store_true",
        help="the arguments are files with one row each, in JSON or HCL",
    )
    add(create, "meta", action="append", default=[], metavar="KEY=VALUE", help="may be repeated")
    create.set_defaults(run=_create)
    match = word(below, "match", "list the intentions that concern a service", _EXAMPLES)
    add(match, "source", action="store_true", help="as the caller")
    add(match, "destination", action="store_true", help="as the one that is called, as without a flag")
    match.set_defaults(run=_match)
    for name, text, run in (
        ("check", "tell whether a tcp connection would be allowed", _check),
        ("get", "show an intention", _get),
        ("delete", "delete an intention", _delete),
        ("list", "list all intentions", _list),
    ):
        word(below, name, text, _EXAMPLES).set_defaults(run=run)
    for name, parser in below.choices.items():
        if name != "list":
            parser.add_argument("names", nargs="*", metavar="NAME", help="source and destination")
        add_agent_flags(parser)


def _create(arguments: argparse.Namespace, environment: Environment) -> int:
    if arguments.allow and arguments.deny:
        return complain("Only one of -allow or -deny may be specified.")
    rows = _rows(arguments)
    if isinstance(rows, int):
        return rows
    ask = Asked(arguments, environment)
    for row in rows:
        code = _write(ask, row, replace=arguments.replace)
        if code:
            return code
    return 0


def _rows(arguments: argparse.Namespace) -> list[dict[str, Any]] | int:
    """Return the rows to be written, or the exit code after a complaint."""
    if arguments.from_files:
        if not arguments.names:
            return complain("Error: Must specify at least one file")
        return [dict(json.loads(json.dumps(read_file(name).data))) for name in arguments.names]
    if len(arguments.names) != 2:  # noqa: PLR2004 - source and destination
        return complain("Error: Must specify two arguments: source and destination")
    pairs = [pair.partition("=") for pair in arguments.meta]
    row: dict[str, Any] = {"SourceName": arguments.names[0], "DestinationName": arguments.names[1]}
    row["Action"] = "deny" if arguments.deny else "allow"
    return [{**row, "SourceType": "consul", **({"Meta": {key: value for key, _, value in pairs}} if pairs else {})}]


def _write(ask: Asked, row: dict[str, Any], *, replace: bool) -> int:
    title = _title(row)
    names = {"source": row["SourceName"], "destination": row["DestinationName"]}
    try:
        held = _exact(ask, names)
        if held is not None and not replace:
            said = f'Sources defines "{names["source"]}" already: {_title(held)}; use -replace'
            return complain(f'Error creating intention "{title}": {said}')
        if row.get("Meta") and held is None:
            ask("POST", "connect", "intentions", body=row)  # the one way to give a row its own Meta
        else:
            kept = ("Action", "Permissions", "Description", "SourceType")
            ask(
                "PUT",
                "connect",
                "intentions",
                "exact",
                query=names,
                body={key: row[key] for key in kept if row.get(key)},
            )
    except CatalogError as error:
        return complain(f'Error creating intention "{title}": {told(error)}')
    if held is None:
        say(f"Created: {title}")
    return 0


def _exact(ask: Asked, names: Mapping[str, str]) -> Row | None:
    try:
        found: Row = ask("GET", "connect", "intentions", "exact", query=names)
    except CatalogError as error:
        if error.status == 404:  # noqa: PLR2004
            return None
        raise
    return found


def _title(row: Row) -> str:
    permissions = row.get("Permissions") or ()
    count = f"{len(permissions)} permission{'s' if len(permissions) != 1 else ''}"
    source = f"peer:{row['SourcePeer']}/{row['SourceName']}" if row.get("SourcePeer") else row["SourceName"]
    return f"{source} => {row['DestinationName']} ({count if permissions else row.get('Action') or 'allow'})"


def _check(arguments: argparse.Namespace, environment: Environment) -> int:
    if len(arguments.names) != 2:  # noqa: PLR2004
        return complain("Error: command requires exactly two arguments: src and dst", 2)
    query = {"source": arguments.names[0], "destination": arguments.names[1], "source-type": "consul"}
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
    name, by = arguments.names[0], "source" if arguments.source else "destination"
    try:
        answer = Asked(arguments, environment)("GET", "connect", "intentions", "match", query={"by": by, "name": name})
    except CatalogError as error:
        return complain(f"Error matching the connection: {told(error)}")
    for row in answer.get(name) or ():
        say(_title(row))
    return 0


def _get(arguments: argparse.Namespace, environment: Environment) -> int:
    if len(arguments.names) != 2:  # noqa: PLR2004
        return complain(_BOTH)
    source, destination = arguments.names
    row = _exact(Asked(arguments, environment), {"source": source, "destination": destination})
    if row is None:
        return complain(f'Intention not found with source "{source}" and destination "{destination}"')
    lines = {"Source": row["SourceName"], "Destination": row["DestinationName"], "Action": row.get("Action", "")}
    lines |= {"Description": row.get("Description", ""), "ID": row.get("ID", "")}
    for name, value in lines.items():
        if value:
            say(f"{name + ':':<13} {value}")
    for permission in row.get("Permissions") or ():
        say(f"Permission:   {json.dumps(permission)}")
    return 0


def _delete(arguments: argparse.Namespace, environment: Environment) -> int:
    if len(arguments.names) != 2:  # noqa: PLR2004
        return complain(_BOTH)
    query = {"source": arguments.names[0], "destination": arguments.names[1]}
    try:
        Asked(arguments, environment)("DELETE", "connect", "intentions", "exact", query=query)
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
        return complain("There are no intentions.", 0)
    table = [("ID", "Source", "Action", "Destination", "Precedence")]
    for row in rows:
        permissions = row.get("Permissions") or ()
        action = (
            f"{len(permissions)} permission{'s' if len(permissions) != 1 else ''}"
            if permissions
            else str(row.get("Action"))
        )
        table.append(
            (str(row.get("ID") or ""), row["SourceName"], action, row["DestinationName"], str(row["Precedence"]))
        )
    widths = [max(len(line[at]) for line in table) for at in range(len(table[0]))]
    for line in table:
        say("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    return 0
