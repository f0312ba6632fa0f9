"""How the operator's words ask the agent: one request, its answer or Consul's text of error."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping
from typing import Any

import structlog

from lictor.flags import agent_overrides
from policies.errors import CatalogError

Environment = Mapping[str, str]


class Asked:
    """The agent that flags and environment name."""

    def __init__(self, arguments: argparse.Namespace, environment: Environment) -> None:
        from controlplane.consul.settings import consul_settings  # noqa: PLC0415 - heavy; `lictor --help` needs none of it

        structlog.configure(
            logger_factory=lambda *_: structlog.PrintLogger(sys.stderr)
        )  # the answer alone is the output
        self._settings = consul_settings(environment, agent_overrides(arguments))
        self._options = {"dc": arguments.datacenter} if arguments.datacenter else {}
        self._reading = {"stale": ""} if arguments.stale else {}

    def __call__(self, method: str, *parts: str, query: Mapping[str, str] | None = None, body: object = None) -> Any:
        """Return the decoded answer of a path under /v1. Raise CatalogError."""
        options = {**self._options, **(self._reading if method == "GET" else {}), **(query or {})}
        return asyncio.run(self._ask(method, parts, options, body))

    async def _ask(self, method: str, parts: tuple[str, ...], query: dict[str, str], body: object) -> Any:
        from controlplane.consul.catalog import Catalog  # noqa: PLC0415 - heavy

        async with Catalog(self._settings) as catalog:
            return await catalog.ask(method, parts, query, body)


def told(error: CatalogError) -> str:
    """Return an error as the stock command line tells it, and what to do about it."""
    text = f"Unexpected response code: {error.status} ({error.detail})" if error.status else str(error)
    return f"{text}\n{error.advice}" if error.advice else text


def say(text: str) -> None:
    """Write a line of the command's output."""
    print(text)  # noqa: T201 - the command's output


def complain(text: str, code: int = 1) -> int:
    """Write a line of error; return the exit code."""
    print(text, file=sys.stderr)  # noqa: T201 - the command's output
    return code
