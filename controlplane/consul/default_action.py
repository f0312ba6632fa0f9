"""Whether the agent allows what no intention says. No endpoint tells it: it is found out by asking about nobody."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from controlplane.consul.paths import path
from controlplane.consul.questions import ROOTS, SELF, Question
from controlplane.consul.shapes import checked_object
from controlplane.registration import SIDECAR_SUFFIX
from policies.errors import CatalogForbidden

_MADE_UP_SOURCE = "lictor-default-action-probe"
_REASONS_OF_THE_DEFAULT = ("Default ", "ACLs disabled")  # else an intention: "Matched L4 intention: ..."

Ask = Callable[[Question], Awaitable[Any]]


async def default_action(ask: Ask, service: str) -> bool | None:
    """Return whether the agent allows what no intention says, None when it cannot be known.

    A source that nobody has is authorized by the default, unless an intention of `*` stands before it: the reason
    tells which. The sidecar's own name, which tokens of sidecars may ask about too, is met by fewer intentions.
    Where they hide the default there as well, the agent's settings tell it to whoever may read the agent.
    """
    uri = f"spiffe://{(await ask(ROOTS))['TrustDomain']}/ns/default/dc/none/svc/{_MADE_UP_SOURCE}"
    told = authorized_by_default(await ask(_authorization(service, uri)))
    with suppress(CatalogForbidden):
        told = authorized_by_default(await ask(_authorization(service + SIDECAR_SUFFIX, uri))) if told is None else told
    with suppress(CatalogForbidden):
        told = configured_default(await ask(SELF)) if told is None else told
    return told


def _authorization(target: str, uri: str) -> Question:
    body = {"Target": target, "ClientCertURI": uri, "ClientCertSerial": "00"}
    return Question(path("agent/connect/authorize"), _checked_authorization, body=body)


def _checked_authorization(where: str, data: Any) -> Mapping[str, Any]:
    return checked_object(where, data, "Authorized", "Reason")


def authorized_by_default(answer: Mapping[str, Any]) -> bool | None:
    """Return what an authorization says of the default, None when an intention stands before it."""
    return answer["Authorized"] is True if str(answer["Reason"]).startswith(_REASONS_OF_THE_DEFAULT) else None


def configured_default(agent: Mapping[str, Any]) -> bool | None:
    """Return the default by the agent's settings (`agent/self`, which needs agent:read); None when they do not say."""
    settings = agent.get("DebugConfig")
    if not isinstance(settings, Mapping) or not isinstance(settings.get("ACLsEnabled"), bool):
        return None
    resolver = settings.get("ACLResolverSettings")
    of_acls = resolver.get("ACLDefaultPolicy") if isinstance(resolver, Mapping) else None
    said = settings.get("DefaultIntentionPolicy") or (of_acls if settings["ACLsEnabled"] else "allow")
    return {"allow": True, "deny": False}.get(str(said))
