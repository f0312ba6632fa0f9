"""What a registration asks of its proxy and this one does not do: shown as problems, so that nobody relies on it.

The table of all fields is docs/config-entries.md; here are those that change who may call, or how a call is treated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from policies.errors import Problem
from policies.weak import folded, items, mapping

_ENVOYS_OWN = ("envoypubliclistenerjson", "envoylocalclusterjson", "envoylistenerjson", "envoyclusterjson")


def unmet(where: str, proxy: Mapping[str, Any]) -> tuple[Problem, ...]:
    """Return a problem for each wish in a `Proxy` object that is not met."""
    return tuple(Problem(where, message, effect) for message, effect in _wishes(proxy))


def _wishes(proxy: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if proxy.get("Mode") == "transparent":
        yield "transparent mode is not supported", "upstreams are called at their local addresses"
    if proxy.get("MutualTLSMode") == "permissive":
        yield "permissive mutual TLS is not supported", "callers without a certificate are refused"
    expose = mapping(proxy.get("Expose"))
    for path in items(expose.get("Paths")):
        yield f"exposed path {mapping(path).get('Path')} is not supported yet", "no listener is opened for it"
    if expose.get("Checks"):
        yield "exposing the paths of checks is not supported yet", "no listener is opened for them"
    for extension in items(proxy.get("EnvoyExtensions")):
        yield f"extension {mapping(extension).get('Name')} is for Envoy alone", "what it would do is not done"
    if mapping(proxy.get("AccessLogs")).get("Enabled"):
        yield "access logs are not supported yet", "none is written"
    yield from _of_envoy(proxy.get("Config"))
    for upstream in items(proxy.get("Upstreams")):
        yield from _of_envoy(mapping(upstream).get("Config"))


def _of_envoy(config: object) -> Iterator[tuple[str, str]]:
    for key, value in mapping(config).items():
        if value and folded(str(key)) in _ENVOYS_OWN:
            yield f"{key} is for Envoy alone", "what it would do is not done"
