"""`lictor dev`: an embedded Consul and an embedded Vault on loopback, for first contact and for tests."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lictor.flags import Words, add, word
from policies.errors import ConfigError, Problem

if TYPE_CHECKING:
    from lictor.dev.server import DevServer, DevSettings

_EXAMPLES = """examples:
  lictor dev                                            Consul on 8500, Vault on 8200, both on loopback
  lictor dev --http-port 0 --vault-port 0               on free ports, which it prints
  lictor dev --state mesh.json                          what was written is there again after a restart
  lictor dev --acl --default-policy deny                with ACLs; `consul acl bootstrap` makes the first token
  lictor dev --fault latency=0.5 --fault only=/v1/health    with faults; see /dev/faults on both ports
"""


def add_to(words: Words) -> None:
    """Add the word and its flags."""
    parser = word(words, "dev", "run an embedded Consul and Vault, for development alone", _EXAMPLES)
    add(parser, "http-port", type=int, default=8500, metavar="PORT", help="Consul's HTTP API; 8500, 0 is a free one")
    add(parser, "vault-port", type=int, default=8200, metavar="PORT", help="Vault's API; 8200, 0 is a free one")
    add(
        parser,
        "root-token",
        default="",
        metavar="TOKEN",
        help="Vault's root token, seen by who lists processes; `root`",
    )
    add(parser, "root-token-file", type=Path, metavar="FILE", help="the same from a file, which other users cannot see")
    add(parser, "acl", action="store_true", help="ACLs on, as `acl { enabled = true }`")
    add(parser, "default-policy", choices=("allow", "deny"), default="allow", help="of ACLs; allow")
    add(
        parser,
        "default-intention-policy",
        choices=("allow", "deny"),
        default="",
        help="what holds without an intention",
    )
    add(
        parser,
        "management-token-file",
        type=Path,
        metavar="FILE",
        help="the first token, so that none need be bootstrapped",
    )
    add(parser, "state", type=Path, metavar="FILE", help="keep everything over a restart; holds keys and tokens")
    add(
        parser, "fault", action="append", default=[], metavar="NAME[=VALUE]", help="begin with a fault; may be repeated"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, _: Mapping[str, str]) -> int:
    """Run the servers until they are told to stop."""
    import asyncio  # noqa: PLC0415 - heavy imports wait until a word needs them

    from lictor.dev.server import DevServer  # noqa: PLC0415

    server = DevServer(_settings(arguments))
    asyncio.run(_serve(server))
    return 0


def _settings(arguments: argparse.Namespace) -> DevSettings:
    from lictor.dev.faults import fault_switches  # noqa: PLC0415
    from lictor.dev.server import ROOT_TOKEN, DevSettings  # noqa: PLC0415

    return DevSettings(
        http_port=arguments.http_port,
        vault_port=arguments.vault_port,
        root_token=_root_token(arguments) or ROOT_TOKEN,
        acl=arguments.acl,
        default_policy=arguments.default_policy,
        default_intention_policy=arguments.default_intention_policy,
        management_token=_secret(arguments.management_token_file, "--management-token-file"),
        state=arguments.state,
        faults=fault_switches(arguments.fault),
    )


def _root_token(arguments: argparse.Namespace) -> str:
    """Return the root token that is given: by a file, or on the command line, which is for a dev server on loopback."""
    if arguments.root_token and arguments.root_token_file:
        raise ConfigError((Problem("--root-token", "is given twice, by itself and by --root-token-file", "give one"),))
    return arguments.root_token or _secret(arguments.root_token_file, "--root-token-file")


def _secret(file: Path | None, flag: str) -> str:
    if file is None:
        return ""
    try:
        return file.read_text().strip()
    except OSError as error:
        raise ConfigError((Problem(f"{flag} {file}", f"cannot be read: {error.strerror}"),)) from error


async def _serve(server: DevServer) -> None:
    import asyncio  # noqa: PLC0415
    import signal  # noqa: PLC0415

    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, told.set)
    async with server:
        _say("This is not for production: everything is in memory, on loopback, without TLS.")
        _say(f"  Consul  export CONSUL_HTTP_ADDR={server.http_addr}")
        _say(f"  Vault   export VAULT_ADDR={server.vault_addr}   (root token: {_told(server)})")
        _say(f"          unseal key: {server.vault.system.unseal_key}")
        _say(f"  faults  curl {server.http_addr}/dev/faults")
        await told.wait()


def _told(server: DevServer) -> str:
    from lictor.dev.server import ROOT_TOKEN  # noqa: PLC0415

    return ROOT_TOKEN if server.settings.root_token == ROOT_TOKEN else "as given"


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - the command's output
