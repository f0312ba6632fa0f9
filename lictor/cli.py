"""`lictor`: run a sidecar or a gateway. The words and flags are those of `consul connect envoy`."""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import structlog
import uvloop

from controlplane.consul.settings import consul_settings
from controlplane.issuer.settings import vault_settings
from controlplane.registration import GATEWAY_DEREGISTER_AFTER, Definition, gateway_definition
from lictor import __version__
from lictor.flags import (
    Parser,
    Words,
    add,
    add_agent_flags,
    add_envoy_flags,
    add_switch,
    agent_overrides,
    environment_default,
    ignored,
    refuse_envoy_flags,
    word,
)
from policies.errors import CatalogError, ConfigError, MeshError, Problem
from policies.snapshot import Role
from sidecar.logs import LEVELS, configure
from sidecar.settings import DEFAULT_ADMIN, DRAIN_SECONDS, GATEWAYS, ProcessSettings, parse_address

log = structlog.get_logger(__name__)
COMMANDS = {  # word -> its module of lictor.commands
    "up": "up",
    "run": "up",
    "init": "up",
    "dev": "dev",
    **{name: name for name in ("config", "intention", "services", "completion")},
}
PROXIES = ("sidecar", "gateway")

_WHO = ("sidecar-for", "proxy-id", "gateway", "service", "register", "address", "wan-address", "bind-address")
_ADDRESS_FIX = "write 192.0.2.10:8443, as others reach this machine"
_EXAMPLES = """examples:
  lictor init                                           a file for a mesh of your own services
  lictor up                                             and that mesh
  lictor config write split.hcl                         policy, as `consul config write` has it
  lictor intention check web db                         may web call db?
  lictor sidecar --sidecar-for web-1                    in the mesh of a Consul that is there
"""
_SIDECAR_EXAMPLES = """examples:
  lictor sidecar --sidecar-for web-1                    the sidecar that is registered for the instance web-1
  lictor sidecar --proxy-id web-1-sidecar-proxy         the same, by its own ID
  lictor sidecar --config web.yaml                      registers service and sidecar itself
"""
_GATEWAY_EXAMPLES = """examples:
  lictor gateway --gateway ingress --service edge --register --address 192.0.2.10:8443
  lictor gateway --gateway ingress --proxy-id edge-1    a gateway that is registered already
  lictor gateway --config edge.yaml
"""


def main(argv: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> int:
    """Run a command; return the exit code: 0 done, 1 failed, 2 wrong input."""
    variables = os.environ if environment is None else environment
    words = list(sys.argv[1:] if argv is None else argv)
    for_envoy: list[str] = []
    if words and words[0] in PROXIES and "--" in words:
        at = words.index("--")
        words, for_envoy = words[:at], words[at:]
    parser = build_parser(words[0] if words else "")
    arguments, unknown = parser.parse_known_args(words)
    if unknown:
        arguments.parser.error(f"not known here: {' '.join(unknown)}")
    try:
        if hasattr(arguments, "run"):
            return int(arguments.run(arguments, variables))
        settings = _settings(arguments, variables)
    except ConfigError as error:
        _print_problems(error)
        return int(arguments.parser.wrong_input)
    if arguments.check:
        print("the settings are good")  # noqa: T201 - the command's output
        return 0
    configure(settings.log_level, as_json=settings.log_json)
    for flag in (*ignored(arguments), *for_envoy[1:]):
        log.info("flag_ignored", flag=flag, why="there is no Envoy here")
    return _run(settings)


def _run(settings: ProcessSettings) -> int:
    from controlplane import lean  # noqa: PLC0415 - not needed to parse flags

    lean.load()
    from sidecar.admin import serve_admin  # noqa: PLC0415
    from sidecar.process import Process  # noqa: PLC0415

    async def live() -> None:
        await Process(settings).run(serve_admin)

    gc.collect()
    gc.freeze()  # what is loaded stays: the collector need not look at it again
    try:
        uvloop.run(live())
    except BaseExceptionGroup as group:
        errors, rest = group.split(MeshError)
        if rest is not None or errors is None:
            raise
        return _failed(errors.exceptions[0])
    except MeshError as error:
        return _failed(error)
    return 0


def _failed(error: BaseException) -> int:
    if isinstance(error, ConfigError):
        _print_problems(error)
        return 2
    advice = error.advice if isinstance(error, CatalogError) else ""
    log.error("cannot_go_on", error=str(error), **({"hint": advice} if advice else {}))
    return 1


def _print_problems(error: ConfigError) -> None:
    for problem in error.problems:
        print(f"lictor: {problem}", file=sys.stderr)  # noqa: T201 - the command's output


# --- flags ---------------------------------------------------------------------------------------------------------


def build_parser(first: str = "") -> argparse.ArgumentParser:
    """Return the parser. Where the first word is known it has no other, and a proxy keeps no operator's in memory."""
    parser = Parser(
        "lictor",
        description="A service mesh on Consul and Vault.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    parser.add_argument("-h", "--help", "-help", action="help", help="show this and stop")
    parser.add_argument(
        "--version", action="version", version=f"lictor {__version__}", help="show the version and stop"
    )
    words = parser.add_subparsers(dest="word", required=True, metavar="WORD")
    if first not in COMMANDS:
        _sidecar_flags(_word(words, "sidecar", "run the proxy beside one service instance", _SIDECAR_EXAMPLES))
        _gateway_flags(_word(words, "gateway", "run the proxy at the edge", _GATEWAY_EXAMPLES))
    known = [COMMANDS[first]] if first in COMMANDS else [] if first in PROXIES else dict.fromkeys(COMMANDS.values())
    for module in known:
        importlib.import_module(f"lictor.commands.{module}").add_to(words)
    return parser


def _word(words: Words, name: str, text: str, examples: str) -> argparse.ArgumentParser:
    parser = word(words, name, text, examples)
    add(parser, "config", metavar="FILE", type=Path, help="YAML with everything: docs/sidecar.md, docs/gateways.md")
    add(parser, "check", action="store_true", help="read the settings, tell every mistake, and stop")
    add(parser, "proxy-id", metavar="ID", help="a proxy that is registered with this agent")
    add(parser, "admin-bind", metavar="HOST:PORT", help="the admin endpoint; 127.0.0.1:19000, or off")
    add(parser, "issuer", choices=("consul", "vault"), help="who signs the leaf; vault if Vault is configured")
    add(parser, "drain", metavar="SECONDS", type=float, help=f"time to finish after SIGTERM; {DRAIN_SECONDS:g}")
    add(parser, "log-level", choices=LEVELS, help="info")
    add(parser, "log-json", action=argparse.BooleanOptionalAction, default=None, help="JSON lines; yes")
    add_agent_flags(parser)
    add_envoy_flags(parser)
    return parser


def _sidecar_flags(parser: argparse.ArgumentParser) -> None:
    add(parser, "sidecar-for", metavar="SERVICE_ID", help="the instance whose registered sidecar this is")
    add(parser, "bind-address", action="append", help=argparse.SUPPRESS)


def _gateway_flags(parser: argparse.ArgumentParser) -> None:
    add(parser, "gateway", choices=tuple(GATEWAYS), help="the kind of gateway")
    add(parser, "service", metavar="NAME", help="the gateway's service name; that of its kind, such as ingress-gateway")
    add_switch(parser, "register", "register the gateway with this agent")
    add(parser, "address", metavar="HOST:PORT", help="the address to register")
    add(parser, "wan-address", metavar="HOST:PORT", help="the address to register for other datacenters")
    add(
        parser,
        "bind-address",
        action="append",
        default=[],
        metavar="NAME=HOST:PORT",
        help="where listeners open, in place of the registered address; may be repeated",
    )
    add(
        parser,
        "deregister-after-critical",
        metavar="DURATION",
        default=GATEWAY_DEREGISTER_AFTER,
        help=f"after which Consul forgets a dead gateway; {GATEWAY_DEREGISTER_AFTER}",
    )


# --- settings ------------------------------------------------------------------------------------------------------


def _settings(arguments: argparse.Namespace, environment: Mapping[str, str]) -> ProcessSettings:
    refuse_envoy_flags(arguments)
    overrides = agent_overrides(arguments)
    if arguments.config is not None:
        _refuse_beside_a_file(arguments)
        settings = _read(arguments.word, arguments.config, environment, overrides)
    elif arguments.word == "sidecar":
        settings = _sidecar(arguments, environment, overrides)
    else:
        settings = _gateway(arguments, environment, overrides)
    settings = _with_issuer(settings, arguments, environment)
    return replace(
        settings,
        admin=_admin(arguments, settings.admin),
        drain_seconds=settings.drain_seconds if arguments.drain is None else arguments.drain,
        log_level=arguments.log_level or settings.log_level,
        log_json=settings.log_json if arguments.log_json is None else arguments.log_json,
    )


def _refuse_beside_a_file(arguments: argparse.Namespace) -> None:
    """Raise ConfigError for flags that say which proxy this is: the file says that."""
    given = [name for name in _WHO if getattr(arguments, name.replace("-", "_"), None)]
    if given:
        message, fix = "the file says which proxy this is", "leave one of the two out"
        raise ConfigError(tuple(Problem(f"--{name}", message, fix) for name in given))


def _read(word: str, file: Path, environment: Mapping[str, str], overrides: Mapping[str, str]) -> ProcessSettings:
    from gateway.config import read_gateway  # noqa: PLC0415 - a YAML reader, only for who has a file
    from sidecar.config import read_sidecar  # noqa: PLC0415

    return (read_sidecar if word == "sidecar" else read_gateway)(file, environment, overrides)


def _sidecar(
    arguments: argparse.Namespace, environment: Mapping[str, str], overrides: Mapping[str, str]
) -> ProcessSettings:
    sidecar_for = arguments.sidecar_for or environment_default(environment, "CONNECT_SIDECAR_FOR")
    proxy_id = arguments.proxy_id or ("" if sidecar_for else environment_default(environment, "CONNECT_PROXY_ID"))
    if bool(sidecar_for) == bool(proxy_id):
        fix = "give one of --sidecar-for, --proxy-id and --config"
        raise ConfigError((Problem("lictor sidecar", "which sidecar is this to be?", fix),))
    return ProcessSettings(
        role=Role.SIDECAR,
        consul=consul_settings(environment, overrides),
        vault=None,
        sidecar_for=sidecar_for,
        proxy_id=proxy_id,
    )


def _gateway(
    arguments: argparse.Namespace, environment: Mapping[str, str], overrides: Mapping[str, str]
) -> ProcessSettings:
    if arguments.gateway is None:
        raise ConfigError((Problem("--gateway", "is missing", f"write --gateway {', '.join(GATEWAYS)}"),))
    return ProcessSettings(
        role=GATEWAYS[arguments.gateway],
        consul=consul_settings(environment, overrides),
        vault=None,
        definitions=_gateway_definitions(arguments),
        proxy_id="" if arguments.register else arguments.proxy_id or "",
        gateway_service=arguments.service or "",
    )


def _gateway_definitions(arguments: argparse.Namespace) -> tuple[Definition, ...]:
    role = GATEWAYS[arguments.gateway]
    if arguments.bind_address and (not arguments.register or role is Role.TERMINATING):
        message = "is part of what an ingress or api gateway registers"
        raise ConfigError((Problem("--bind-address", message, "leave it out, or add --register"),))
    if not arguments.register:
        return ()
    service = arguments.service or role.value
    if not arguments.address:
        raise ConfigError((Problem("--address", "is needed to register", _ADDRESS_FIX),))
    address = _address("--address", arguments.address)
    definition = gateway_definition(
        role.value,
        service,
        arguments.proxy_id or service,
        *address,
        wan=_address("--wan-address", arguments.wan_address) if arguments.wan_address else None,
        bind=dict(_named_address(text) for text in arguments.bind_address),
        deregister_after=arguments.deregister_after_critical,
    )
    return (definition,)


def _named_address(text: str) -> tuple[str, tuple[str, int]]:
    name, sign, address = text.partition("=")
    if not sign or not name:
        raise ConfigError((Problem("--bind-address", f"{text!r} has no name", "write public=0.0.0.0:8443"),))
    return name, _address("--bind-address", address)


def _address(flag: str, text: str) -> tuple[str, int]:
    try:
        host, port = parse_address(text)
        if "{{" not in host:  # a template of Consul's, which nobody fills in here
            return host, port
    except ValueError:
        pass
    raise ConfigError((Problem(flag, f"{text!r} is not host:port", _ADDRESS_FIX),))


def _with_issuer(
    settings: ProcessSettings, arguments: argparse.Namespace, environment: Mapping[str, str]
) -> ProcessSettings:
    """Choose who signs: the flag, else the file, else Vault if the environment configures it."""
    if arguments.issuer == "consul":
        return replace(settings, vault=None)
    vault = settings.vault
    if vault is None and (arguments.config is None or arguments.issuer == "vault"):
        vault = vault_settings(environment)
    if arguments.issuer == "vault" and vault is None:
        fix = "set VAULT_ADDR and LICTOR_VAULT_ROLE, or give a file with a `vault` block"
        raise ConfigError((Problem("--issuer", "vault is not configured", fix),))
    return replace(settings, vault=vault)


def _admin(arguments: argparse.Namespace, default: tuple[str, int] | None) -> tuple[str, int] | None:
    if not arguments.admin_bind:
        return default or (DEFAULT_ADMIN if arguments.config is None else None)
    if arguments.admin_bind == "off":
        return None
    try:
        return parse_address(arguments.admin_bind)
    except ValueError as error:
        problem = Problem("--admin-bind", f"{arguments.admin_bind!r} is not host:port", "write 127.0.0.1:19000")
        raise ConfigError((problem,)) from error
