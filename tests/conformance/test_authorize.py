"""Our answer to a tcp connection against the agent's own, /v1/agent/connect/authorize, over a table of intentions."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any

import pytest

from controlplane.catalog import Catalog
from controlplane.consul_settings import ConsulSettings
from harness.servers import ConsulServer, consul_server
from policies.intentions import Action, parse_intentions
from policies.snapshot import DefaultActionWatch, IntentionsWatch

SOURCES = ("web", "db", "other")
TARGET = "auth-api"


@pytest.fixture(scope="module", params=["allow", "deny"])
def server(request: pytest.FixtureRequest) -> Iterator[ConsulServer]:
    with consul_server(settings={"default_intention_policy": request.param}) as running:
        yield running


def sources(seed: int) -> dict[str, list[dict[str, Any]]]:
    """Return random sources for the exact destination and for `*`."""
    chance = random.Random(seed)
    found: dict[str, list[dict[str, Any]]] = {}
    for destination in (TARGET, "*"):
        rows = []
        for source in ("web", "db", "*"):
            kind = chance.choice(["none", "allow", "deny", "http"])
            if kind == "http" and destination != "*":
                action = chance.choice(["allow", "deny"])
                rows.append({"Name": source, "Permissions": [{"Action": action, "HTTP": {"PathPrefix": "/"}}]})
            elif kind in {"allow", "deny"}:
                rows.append({"Name": source, "Action": kind})
        found[destination] = rows
    return found


@pytest.mark.parametrize("seed", range(12))
async def test_our_decision_is_the_agents(server: ConsulServer, seed: int) -> None:
    server.write({"Kind": "service-defaults", "Name": TARGET, "Protocol": "http"})
    for destination, rows in sources(seed).items():
        if rows:
            server.write({"Kind": "service-intentions", "Name": destination, "Sources": rows})
        else:
            server.api(f"config/service-intentions/{destination}", "DELETE")
    async with Catalog(ConsulSettings(server.http_addr)) as agent:
        trust_domain = str((await agent.roots())["TrustDomain"])
        rows = (await agent.read(IntentionsWatch(TARGET), "", 1)).data
        allowed = (await agent.read(DefaultActionWatch(TARGET), "", 1)).data
    intentions, problems = parse_intentions(rows)
    assert not problems
    # The probe for the default meets intentions of `*` too; the agent's own setting is what is left.
    default = Action.ALLOW if allowed else Action.DENY
    for source in SOURCES:
        uri = f"spiffe://{trust_domain}/ns/default/dc/dc1/svc/{source}"
        body = {"Target": TARGET, "ClientCertURI": uri, "ClientCertSerial": "00"}
        theirs = server.api("agent/connect/authorize", "POST", body)
        ours = intentions.for_source(source, default).connection
        assert ours.allowed is theirs["Authorized"], (source, ours.because, theirs["Reason"])


def test_the_table_is_not_trivial() -> None:
    kinds = {
        str(row.get("Action") or "http")
        for seed, rows in itertools.chain.from_iterable(
            ((seed, rows) for rows in sources(seed).values()) for seed in range(12)
        )
        for row in rows
    }
    assert kinds == {"allow", "deny", "http"}
