"""Flags as Consul's own command line has them: `-flag value`, `--flag value`, `-flag=value` alike.

What has a meaning here is taken; what only concerns Envoy is taken and said to have none; a token on the command line,
where every user of the machine could read it, is refused.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn, TypeAlias

from policies.errors import ConfigError, Problem

AGENT_FLAGS = {
    "http-addr": ("CONSUL_HTTP_ADDR", "ADDR", "the agent: host:port, URL or unix://path"),
    "token-file": ("CONSUL_HTTP_TOKEN_FILE", "FILE", "a file with the ACL token; read again when it changes"),
    "ca-file": ("CONSUL_CACERT", "FILE", "CA of an https agent"),
    "ca-path": ("CONSUL_CAPATH", "DIR", "folder of CAs of an https agent"),
    "client-cert": ("CONSUL_CLIENT_CERT", "FILE", "client certificate for the agent"),
    "client-key": ("CONSUL_CLIENT_KEY", "FILE", "its key"),
    "tls-server-name": ("CONSUL_TLS_SERVER_NAME", "NAME", "name expected in the agent's certificate"),
    "namespace": ("CONSUL_NAMESPACE", "NAME", "only `default`: namespaces are Consul Enterprise"),
    "partition": ("CONSUL_PARTITION", "NAME", "only `default`: partitions are Consul Enterprise"),
}
_WITHOUT_MEANING = ("grpc-addr", "grpc-ca-file", "envoy-binary", "admin-access-log-path", "envoy-version")
_WITHOUT_MEANING_SWITCHES = ("ignore-envoy-compatibility", "no-central-config", "stale", "omit-deprecated-tags")
_OF_ENVOY = (
    *("envoy-ready-bind-address", "envoy-ready-bind-port", "grpc-ca-path", "node-name"),
    *("prometheus-backend-port", "prometheus-ca-file", "prometheus-ca-path", "prometheus-cert-file"),
    *("prometheus-key-file", "prometheus-scrape-path"),
)
_OF_GATEWAYS = ("bind-address",)
_OF_ENVOY_SWITCHES = ("enable-config-gen-logging",)
_REFUSED = {
    "bootstrap": "there is no Envoy to write a configuration for; leave it out, and the proxy runs",
    "mesh-gateway": "mesh gateways are not supported; write --gateway ingress",
    "expose-servers": "it is for mesh gateways, which are not supported",
}
_TRUE = ("1", "t", "T", "true", "TRUE", "True")  # what Go's flags take for a boolean
_FALSE = ("0", "f", "F", "false", "FALSE", "False")

Words: TypeAlias = "argparse._SubParsersAction[Parser]"  # noqa: SLF001 - argparse gives it no other name


class Parser(argparse.ArgumentParser):
    """A word. `wrong_input` is the exit code for input that cannot be: the stock words have 1, and `check` has 2."""

    wrong_input = 2

    def error(self, message: str) -> NoReturn:
        """Tell what is wrong with the words, and where help is."""
        print(f"{self.prog}: {message}\nsee: {self.prog} --help", file=sys.stderr)  # noqa: T201 - the command's output
        raise SystemExit(self.wrong_input)


def word(words: Words, name: str, text: str, examples: str, *, wrong_input: int = 2) -> Parser:
    """Add a word to the command line, with examples under its help."""
    made = words.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    assert isinstance(made, Parser)  # noqa: S101 - argparse makes them of the class of the first
    made.wrong_input = wrong_input
    made.add_argument("-h", "--help", "-help", action="help", help="show this and stop")
    made.set_defaults(parser=made)
    return made


def add(parser: argparse._ActionsContainer, name: str, **named: object) -> None:
    """Add a flag under both spellings."""
    parser.add_argument(f"--{name}", f"-{name}", **named)  # type: ignore[arg-type]


def add_switch(parser: argparse._ActionsContainer, name: str, text: str, dest: str | None = None) -> None:
    """Add a flag that is on or off: `-cas`, and `-cas=true`, `-cas=false` as Go has them."""
    dest = dest or name.replace("-", "_")
    add(parser, name, dest=dest, action="store_true", help=text)
    for values, action in ((_TRUE, "store_true"), (_FALSE, "store_false")):
        spelled = [f"{dashes}{name}={value}" for dashes in ("--", "-") for value in values]
        parser.add_argument(*spelled, dest=dest, action=action, default=False, help=argparse.SUPPRESS)


def pair(text: str) -> tuple[str, str]:
    """Return the two sides of `key=value`. Raise ArgumentTypeError."""
    key, sign, value = text.partition("=")
    if not sign:
        message = f"{text!r} is not key=value"
        raise argparse.ArgumentTypeError(message)
    return key, value


def unsigned(text: str) -> int:
    """Return a number from 0 on. Raise ArgumentTypeError."""
    try:
        number = int(text, 0)
    except ValueError:
        number = -1
    if number < 0:
        message = f"{text!r} is no number from 0 on"
        raise argparse.ArgumentTypeError(message)
    return number


def add_agent_flags(parser: argparse.ArgumentParser) -> None:
    """Add how to reach the agent, and what Consul's command line would also take."""
    group = parser.add_argument_group("the Consul agent (each also by its environment variable)")
    for name, (variable, metavar, text) in AGENT_FLAGS.items():
        add(group, name, metavar=metavar, help=f"{text} ({variable})")
    add(group, "token", help=argparse.SUPPRESS)
    for name in _WITHOUT_MEANING:
        add(group, name, help=argparse.SUPPRESS)
    for name in _WITHOUT_MEANING_SWITCHES:
        add_switch(group, name, argparse.SUPPRESS)


def add_envoy_flags(parser: argparse.ArgumentParser) -> None:
    """Add what `consul connect envoy` also takes, so that its command lines can be typed."""
    for name in _OF_ENVOY:
        add(parser, name, help=argparse.SUPPRESS)
    for name in (*_OF_ENVOY_SWITCHES, *_REFUSED):
        add_switch(parser, name, argparse.SUPPRESS)


def refuse_envoy_flags(arguments: argparse.Namespace) -> None:
    """Raise ConfigError for flags that ask for something else than a running proxy."""
    given = [name for name in _REFUSED if getattr(arguments, name.replace("-", "_"))]
    if given:
        raise ConfigError(tuple(Problem(f"--{name}", "has no meaning here", _REFUSED[name]) for name in given))


def add_operator_flags(parser: argparse.ArgumentParser) -> None:
    """Add how to reach the agent, and whom it shall ask: what each of Consul's own words takes."""
    add_agent_flags(parser)
    add(parser, "datacenter", default="", metavar="NAME", help="the datacenter to ask; the agent's own")


def agent_overrides(arguments: argparse.Namespace) -> dict[str, str]:
    """Return the agent flags given, by the names of their environment variables. Raise ConfigError for --token."""
    if arguments.token:
        fix = "put it into a file and give --token-file, or set CONSUL_HTTP_TOKEN"
        raise ConfigError((Problem("--token", "a token on a command line can be read by every user", fix),))
    given = {variable: getattr(arguments, name.replace("-", "_")) for name, (variable, _, _) in AGENT_FLAGS.items()}
    return {variable: value for variable, value in given.items() if value}


def ignored(arguments: argparse.Namespace) -> Sequence[str]:
    """Return the flags given that have no meaning here."""
    here = _OF_GATEWAYS if arguments.word == "sidecar" else ()
    names = (*_WITHOUT_MEANING, *_WITHOUT_MEANING_SWITCHES, *_OF_ENVOY, *_OF_ENVOY_SWITCHES, *here)
    return [f"--{name}" for name in names if getattr(arguments, name.replace("-", "_"))]


def environment_default(environment: Mapping[str, str], *names: str) -> str:
    """Return the first of these variables that is set."""
    return next((environment[name] for name in names if environment.get(name)), "")
