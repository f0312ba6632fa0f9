"""Flags as Consul's own command line has them: `-flag value`, `--flag value`, `-flag=value` alike.

What has a meaning here is taken; what only concerns Envoy is taken and said to have none; a token on the command line,
where every user of the machine could read it, is refused.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TypeAlias

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


Words: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 - argparse gives it no other name


def word(words: Words, name: str, text: str, examples: str) -> argparse.ArgumentParser:
    """Add a word to the command line, with examples under its help."""
    return words.add_parser(
        name,
        help=text,
        description=text,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add(parser: argparse._ActionsContainer, name: str, **named: object) -> None:
    """Add a flag under both spellings."""
    parser.add_argument(f"--{name}", f"-{name}", **named)  # type: ignore[arg-type]


def add_agent_flags(parser: argparse.ArgumentParser) -> None:
    """Add how to reach the agent, and what Consul's command line would also take."""
    group = parser.add_argument_group("the Consul agent (each also by its environment variable)")
    for name, (variable, metavar, text) in AGENT_FLAGS.items():
        add(group, name, metavar=metavar, help=f"{text} ({variable})")
    add(group, "token", help=argparse.SUPPRESS)
    for name in _WITHOUT_MEANING:
        add(group, name, help=argparse.SUPPRESS)
    for name in _WITHOUT_MEANING_SWITCHES:
        add(group, name, action="store_true", help=argparse.SUPPRESS)


def agent_overrides(arguments: argparse.Namespace) -> dict[str, str]:
    """Return the agent flags given, by the names of their environment variables. Raise ConfigError for --token."""
    if arguments.token:
        fix = "put it into a file and give --token-file, or set CONSUL_HTTP_TOKEN"
        raise ConfigError((Problem("--token", "a token on a command line can be read by every user", fix),))
    given = {variable: getattr(arguments, name.replace("-", "_")) for name, (variable, _, _) in AGENT_FLAGS.items()}
    return {variable: value for variable, value in given.items() if value}


def ignored(arguments: argparse.Namespace) -> Sequence[str]:
    """Return the flags given that have no meaning here."""
    names = (*_WITHOUT_MEANING, *_WITHOUT_MEANING_SWITCHES)
    return [f"--{name}" for name in names if getattr(arguments, name.replace("-", "_"))]


def environment_default(environment: Mapping[str, str], *names: str) -> str:
    """Return the first of these variables that is set."""
    return next((environment[name] for name in names if environment.get(name)), "")
