"""`lictor services`: registrations with the agent, as `consul services` has them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from lictor.commands.agent import Asked, Environment, complain, say, told
from lictor.dev.consul.definitions import SERVICE
from lictor.documents import Document, read_file
from lictor.flags import Words, add, add_agent_flags, word
from policies.errors import CatalogError, ConfigError, Problem

Json = dict[str, Any]
_EXAMPLES = """examples:
  lictor services register web.hcl                      every `service` block of a file
  lictor services register -name web -port 8080 -tag v1 -meta version=1
  lictor services deregister -id web
  lictor services deregister web.hcl
"""


def add_to(words: Words) -> None:
    """Add the word and what it may be followed by."""
    below = word(words, "services", "register and deregister services", _EXAMPLES).add_subparsers(
        dest="action", required=True, metavar="register | deregister"
    )
    register = word(below, "register", "register services", _EXAMPLES)
    for name in ("name", "address", "socket", "kind"):
        add(register, name, default="", metavar=name.upper())
    add(register, "port", type=int, default=0, metavar="PORT")
    add(register, "tag", action="append", default=[], metavar="TAG", help="may be repeated")
    add(register, "meta", action="append", default=[], metavar="KEY=VALUE", help="may be repeated")
    add(register, "tagged-address", action="append", default=[], metavar="NAME=ADDRESS[:PORT]", help="may be repeated")
    register.set_defaults(run=_register)
    word(below, "deregister", "deregister services", _EXAMPLES).set_defaults(run=_deregister)
    for parser in below.choices.values():
        add(parser, "id", default="", metavar="ID")
        parser.add_argument("files", nargs="*", metavar="FILE", help="HCL or JSON with `service` or `services`")
        add_agent_flags(parser)


def _register(arguments: argparse.Namespace, environment: Environment) -> int:
    if not arguments.files and not arguments.name:
        return complain("Service registration requires at least one argument or flags.")
    services = _of_files(arguments.files) if arguments.files else [_of_flags(arguments)]
    ask = Asked(arguments, environment)
    for service in services:
        try:
            ask("PUT", "agent", "service", "register", body=service)
        except CatalogError as error:
            return complain(f'Error registering service "{service.get("Name", "")}": {told(error)}')
        say(f"Registered service: {service['Name']}")
    return 0


def _deregister(arguments: argparse.Namespace, environment: Environment) -> int:
    if not arguments.files and not arguments.id:
        return complain("Service deregistration requires at least one argument or -id.")
    services = _of_files(arguments.files) if arguments.files else [{"ID": arguments.id}]
    ask = Asked(arguments, environment)
    for service in services:
        identifier = service.get("ID") or service.get("Name") or ""
        try:
            ask("PUT", "agent", "service", "deregister", identifier)
        except CatalogError as error:
            return complain(f'Error deregistering service "{identifier}": {told(error)}')
        say(f"Deregistered service: {identifier}")
    return 0


def _of_flags(arguments: argparse.Namespace) -> Json:
    given = {"ID": arguments.id, "Name": arguments.name, "Address": arguments.address, "Port": arguments.port}
    given |= {"SocketPath": arguments.socket, "Kind": arguments.kind, "Tags": arguments.tag}
    given["Meta"] = {key: value for key, _, value in (pair.partition("=") for pair in arguments.meta)}
    given["TaggedAddresses"] = dict(_tagged(pair) for pair in arguments.tagged_address)
    return {name: value for name, value in given.items() if value}


def _tagged(pair: str) -> tuple[str, Json]:
    name, _, where = pair.partition("=")
    address, _, port = where.rpartition(":")
    if not name or not where or (address and not port.isdigit()):
        problem = Problem("-tagged-address", f"{pair!r} is not name=address:port", "write lan=192.0.2.10:8080")
        raise ConfigError((problem,))
    return name, {"Address": address or where, "Port": int(port) if address else 0}


def _of_files(names: list[str]) -> list[Json]:
    """Return the definitions of all files. Raise ConfigError with every mistake."""
    problems: list[Problem] = []
    found: list[Json] = []
    for name in names:
        document = read_file(name)
        data = document.data
        blocks = [*_listed(data.get("service")), *_listed(data.get("services"))]
        if not blocks:
            problems.append(Problem(name, "holds no `service` and no `services`", "write service { name = ... }"))
        for block in blocks:
            service = folded(block, SERVICE, "service", document, problems)
            if not service.get("Name"):
                problems.append(Problem(name, "a service has no name", 'write name = "web"'))
            found.append(service)
    if problems:
        raise ConfigError(tuple(problems))
    return found


def _listed(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, list) else [value]


def folded(raw: Any, shape: Any, where: str, document: Document, problems: list[Problem]) -> Any:
    """Return a value with the keys of Consul's API (`sidecar_service` is `SidecarService`). Collect mistakes."""
    if isinstance(shape, list):
        return [
            folded(element, shape[0], f"{where}[{at}]", document, problems) for at, element in enumerate(_listed(raw))
        ]
    if not isinstance(shape, dict) or raw is None:
        return raw
    if isinstance(raw, list):
        if len(raw) != 1:
            problems.append(Problem(f"{document.place(where.rpartition('.')[2])}: {where}", "stands more than once"))
        raw = raw[0] if raw else {}
    if not isinstance(raw, Mapping):
        problems.append(Problem(f"{document.name}: {where}", f"a block was expected, not {raw!r}"))
        return {}
    if "" in shape:
        return {key: folded(value, shape[""], f"{where}.{key}", document, problems) for key, value in raw.items()}
    names = {name.lower(): name for name in shape}
    if "checkid" in names:
        names["id"] = "CheckID"
    found: Json = {}
    for key, value in raw.items():
        name = names.get(key.replace("_", "").lower())
        if name is None:
            problems.append(
                Problem(
                    f"{document.place(key)}: {where}.{key}",
                    "is not a known field",
                    f"known are {', '.join(sorted(shape))}",
                )
            )
            continue
        found[name] = folded(value, shape[name], f"{where}.{key}", document, problems)
    return found
