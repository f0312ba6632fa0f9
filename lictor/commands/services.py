"""`lictor services`: registrations with the agent, as `consul services` has them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from lictor.commands.agent import Asked, Environment, complain, say, told
from lictor.definitions import Definitions, read_definitions
from lictor.documents import Document, read_file
from lictor.flags import Words, add, add_operator_flags, pair, word
from policies.errors import CatalogError, ConfigError, Problem

Json = dict[str, Any]
_EXAMPLES = """examples:
  lictor services register web.hcl
  lictor services deregister -id web
"""
_REGISTER = """examples:
  lictor services register web.hcl                      `service { ... }` and every `services { ... }` of a file
  lictor services register -                            of the standard input
  lictor services register -name web -port 8080 -tag v1 -tag blue -meta version=1
  lictor services register -name web -id web-2 -address 192.0.2.10 -port 8080
  lictor services register -name web -tagged-address lan=192.0.2.10:8080
"""
_DEREGISTER = """examples:
  lictor services deregister -id web-2
  lictor services deregister web.hcl                    the services that the file defines
"""
_FLAGS = ("id", "name", "address", "port", "socket", "kind", "tag", "meta", "tagged_address")
_NOT_BOTH = "give files or flags, not both"


def add_to(words: Words) -> None:
    """Add the word and what it may be followed by."""
    below = word(words, "services", "register and deregister services", _EXAMPLES, wrong_input=1)
    actions = below.add_subparsers(dest="action", required=True, metavar="register | deregister")
    register = word(actions, "register", "register services with the agent", _REGISTER, wrong_input=1)
    add(register, "id", default="", metavar="ID", help="of the instance; the name")
    add(register, "name", default="", metavar="NAME", help="of the service")
    add(register, "address", default="", metavar="ADDRESS", help="where it is reached; the agent's address")
    add(register, "port", type=int, default=0, metavar="PORT", help="where it listens")
    add(register, "socket", default="", metavar="PATH", help="the unix socket where it listens instead")
    add(register, "kind", default="", metavar="SERVICE_KIND", help="of a proxy or a gateway")
    add(register, "tag", action="append", default=[], metavar="TAG", help="may be repeated")
    add(register, "meta", type=pair, action="append", default=[], metavar="KEY=VALUE", help="may be repeated")
    text = "an address for others; may be repeated"
    add(register, "tagged-address", type=pair, action="append", default=[], metavar="NAME=ADDRESS:PORT", help=text)
    register.set_defaults(run=_register)
    deregister = word(actions, "deregister", "deregister services of the agent", _DEREGISTER, wrong_input=1)
    add(deregister, "id", default="", metavar="ID", help="of the instance")
    deregister.set_defaults(run=_deregister)
    for parser in (register, deregister):
        parser.add_argument("files", nargs="*", metavar="FILE", help="HCL or JSON; - is the standard input")
        add_operator_flags(parser)


def _register(arguments: argparse.Namespace, environment: Environment) -> int:
    if arguments.files and any(getattr(arguments, name) for name in _FLAGS):
        return complain(_NOT_BOTH)
    if not arguments.files and not arguments.name:
        return complain("Service registration requires at least one argument or flags.")
    services = list(_of_files(arguments.files)) if arguments.files else [(None, _of_flags(arguments))]
    ask = Asked(arguments, environment)
    for document, service in services:
        name = service.get("Name", "")
        try:
            ask("PUT", "agent", "service", "register", body=service)
        except CatalogError as error:
            return complain(f'Error registering service "{name}"{_of(document, error)}: {told(error)}')
        say(f"Registered service: {name}")
    return 0


def _deregister(arguments: argparse.Namespace, environment: Environment) -> int:
    if arguments.files and arguments.id:
        return complain(_NOT_BOTH)
    if not arguments.files and not arguments.id:
        return complain("Service deregistration requires at least one argument or -id.")
    services = list(_of_files(arguments.files)) if arguments.files else [(None, {"ID": arguments.id})]
    ask = Asked(arguments, environment)
    for document, service in services:
        identifier = service.get("ID") or service.get("Name") or ""
        try:
            ask("PUT", "agent", "service", "deregister", identifier)
        except CatalogError as error:
            return complain(f'Error deregistering service "{identifier}"{_of(document, error)}: {told(error)}')
        say(f"Deregistered service: {identifier}")
    return 0


def _of(document: Document | None, error: CatalogError) -> str:
    return f" of {document.at(error.detail)}" if document else ""


def _of_flags(arguments: argparse.Namespace) -> Json:
    given = {"ID": arguments.id, "Name": arguments.name, "Address": arguments.address, "Port": arguments.port}
    given |= {"SocketPath": arguments.socket, "Kind": arguments.kind, "Tags": arguments.tag}
    given |= {"Meta": dict(arguments.meta), "TaggedAddresses": dict(_tagged(*one) for one in arguments.tagged_address)}
    return {name: value for name, value in given.items() if value}


def _tagged(name: str, where: str) -> tuple[str, Json]:
    address, colon, port = where.rpartition(":")
    if not colon or not port.isdigit() or (":" in address and not address.startswith("[")):
        raise ConfigError((Problem("-tagged-address", f"{where!r} is not address:port", "write lan=192.0.2.10:8080"),))
    return name, {"Address": address.strip("[]"), "Port": int(port)}


def _of_files(names: list[str]) -> Iterator[tuple[Document, Json]]:
    """Yield the definitions of all files. Raise ConfigError with every mistake in all of them."""
    problems: list[Problem] = []
    files: list[Definitions] = []
    for name in names:
        try:
            files.append(read_definitions(read_file(name)))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(tuple(problems))
    for file in files:
        for key in file.others:
            complain(f"{file.document.place(key)}: {key}: is no service, and was passed over")
        for service in file.services:
            yield file.document, service
