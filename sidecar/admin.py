"""The admin endpoint: how the process stands, on loopback. Shows no key and no token.

/ready  200 when traffic may come, else 503; says what is waited for     /live           200 while the loop runs
/metrics, /stats/prometheus   Prometheus text                            /config_dump    table, watches, problems
/certs  leaves, roots, edge    /clusters  endpoints and connections       /drain (POST)   begin to drain;
        with ?hold=true what the app calls goes on until SIGTERM, with &wait=true the answer comes when it is drained
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from dataplane.exposition import Family, gauge
from dataplane.listener import bind
from policies.canonical import plain
from policies.identity import Leaf
from policies.rotation import LeafState, leaf_state
from policies.wanted import missing, waiting
from policies.watches import name_of
from sidecar.process import Phase, Process

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


async def serve_admin(process: Process) -> Callable[[], Awaitable[None]]:
    """Start the endpoint of a process; return how to stop it. Raise ConfigError when the port cannot be had."""
    process.metrics.gauges.append(lambda: _gauges(process))
    address = process.settings.admin
    if address is None:
        return _nothing
    app = web.Application()
    for paths, respond in _pages(process).items():
        for path in paths:
            app.router.add_get(path, respond)
    app.router.add_post("/drain", _drain(process))
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    await web.SockSite(runner, bind(*address)).start()
    return runner.cleanup


async def _nothing() -> None:
    """Nothing was started."""


Respond = Callable[[web.Request], Awaitable[web.Response]]


def _pages(process: Process) -> dict[tuple[str, ...], Respond]:
    async def ready(_: web.Request) -> web.Response:
        return web.json_response(readiness(process), status=200 if process.ready() else 503)

    async def live(_: web.Request) -> web.Response:
        return web.json_response({"phase": process.phase.value})

    async def metrics(_: web.Request) -> web.Response:
        text = await asyncio.to_thread(process.metrics.render)
        return web.Response(body=text, headers={"Content-Type": _CONTENT_TYPE})

    async def config_dump(_: web.Request) -> web.Response:
        return web.json_response(await asyncio.to_thread(dump, process))

    async def certs(_: web.Request) -> web.Response:
        return web.json_response(certificates(process))

    async def clusters(_: web.Request) -> web.Response:
        return web.json_response(process.dataplane.pools.describe() if process.dataplane is not None else [])

    return {
        ("/ready",): ready,
        ("/live",): live,
        ("/metrics", "/stats/prometheus"): metrics,
        ("/config_dump",): config_dump,
        ("/certs",): certs,
        ("/clusters",): clusters,
    }


def _drain(process: Process) -> Respond:
    async def drain(request: web.Request) -> web.Response:
        if request.query.get("hold") == "true":
            await process.drain_and_hold(wait=request.query.get("wait") == "true")
        else:
            process.stop()
        return web.json_response({"phase": Phase.DRAINING.value}, status=202)

    return drain


# --- what is told --------------------------------------------------------------------------------------------------


def readiness(process: Process) -> dict[str, Any]:
    """Return how the process stands: what it waits for, what fails since when, how the leaf is."""
    follower = process.follower
    now = asyncio.get_running_loop().time()
    failing = follower.status.failing() if follower is not None else {}
    return {
        "ready": process.ready(),
        "pid": os.getpid(),  # a successor has the same port
        "phase": process.phase.value,
        "missing": list(missing(follower.snapshot)) if follower is not None else ["the Consul agent"],
        "waiting": [name_of(watch) for watch in waiting(follower.snapshot)] if follower is not None else [],
        "stale": {
            name_of(watch): {"seconds": round(now - (status.failing_since or now), 1), "error": status.error}
            for watch, status in failing.items()
        },
        "leaf": state_of_leaf(process).value,
        "issuer": _issuer(process),
        "problems": [str(problem) for problem in process.problems],
    }


def _issuer(process: Process) -> dict[str, Any]:
    if process.sources is None:
        return {}
    status = process.sources.issuer.status
    return {
        "kind": status.kind,
        "issued": status.issued,
        "error": status.error,
        "failing_seconds": round(time.time() - status.failing_since, 1) if status.failing_since else 0,
        "renews_in_seconds": round(status.next_renewal - time.time(), 1) if status.next_renewal else None,
    }


def dump(process: Process) -> dict[str, Any]:
    """Return the table in force, what was heard, and every problem."""
    generation, follower = process.live.current, process.follower
    return {
        "generation": generation.number if generation is not None else 0,
        "table": plain(generation.table) if generation is not None else None,
        "mesh": plain(generation.mesh) if generation is not None else None,
        "watches": {
            name_of(watch): {"failures": status.failures, "error": status.error, "index_resets": status.resets}
            for watch, status in (follower.status.watches.copy().items() if follower is not None else ())
        },
        "problems": [str(problem) for problem in process.problems],
    }


def certificates(process: Process) -> dict[str, Any]:
    """Return the leaf, those of linked services, the trust bundle, and what a gateway shows outside; no keys."""
    generation = process.live.current
    if generation is None:
        return {"leaf": None, "roots": [], "edge": []}
    return {
        "leaf": _shown(generation.leaf),
        "linked": {name: _shown(credential.leaf) for name, credential in sorted(generation.linked.items())},
        "trust_domain": generation.roots.trust_domain,
        "roots": list(generation.roots.pems),
        "edge": _edge_certificates(process),
    }


def _shown(leaf: Leaf) -> dict[str, str]:
    return {
        "spiffe_id": str(leaf.spiffe_id),
        "serial": leaf.serial,
        "not_before": leaf.not_before.isoformat(),
        "not_after": leaf.not_after.isoformat(),
        "chain": leaf.chain_pem,
    }


def _edge_certificates(process: Process) -> list[dict[str, Any]]:
    """Return what the TLS listeners call for: what is shown, where it comes from, and what is wrong with that."""
    generation, sources = process.live.current, process.sources
    if generation is None or sources is None or sources.certificates is None:
        return []
    found = []
    for reference, status in sorted(sources.certificates.statuses.items()):
        known = generation.material.certificates.get(reference) if generation.material is not None else None
        facts: dict[str, Any] = {"certificate": str(reference), "from": status.kind, "error": status.error}
        if known is not None:
            facts |= {
                "names": list(known.names),
                "serial": known.serial,
                "not_before": known.not_before.isoformat(),
                "not_after": known.not_after.isoformat(),
            }
        ports = sorted(port for port, contexts in generation.outside.items() if reference in contexts.made_from[1])
        found.append({**facts, "ports": ports})
    return found


def _gauges(process: Process) -> Iterator[Family]:
    generation, follower = process.live.current, process.follower
    left = generation.leaf_ends - time.time() if generation is not None else 0.0
    yield gauge("lictor_leaf_seconds_left", "Seconds until the leaf in force ends.", left)
    if generation is not None and generation.material is not None and generation.material.certificates:
        edge = Family("lictor_edge_certificate_seconds_left", "gauge", "Seconds until a certificate of the edge ends.")
        for reference, certificate in generation.material.certificates.items():
            edge.add({"certificate": str(reference)}, certificate.not_after.timestamp() - time.time())
        yield edge
    if generation is not None and generation.linked:
        linked = Family("lictor_linked_leaf_seconds_left", "gauge", "Seconds until the leaf of a linked service ends.")
        for name, credential in generation.linked.items():
            linked.add({"service": name}, credential.ends - time.time())
        yield linked
    state = state_of_leaf(process)
    yield gauge("lictor_ready", "1 when traffic may be sent here.", float(process.ready()))
    yield gauge("lictor_leaf_aging", "1 past 75 % of the leaf's life.", float(state is LeafState.AGING))
    number = generation.number if generation is not None else 0
    yield gauge("lictor_generation", "Number of the generation in force.", number)
    yield gauge("lictor_problems", "Entries and settings that are not followed.", len(process.problems))
    issued = process.sources.issuer.status.issued if process.sources is not None else 0
    yield gauge("lictor_leaves_issued", "Leaves that this process was given.", issued)
    failing = len(follower.status.failing()) if follower is not None else 0
    yield gauge("lictor_watches_failing", "Watches of Consul whose last read failed.", failing)


def state_of_leaf(process: Process) -> LeafState:
    """Return how the leaf in force stands."""
    generation = process.live.current
    validity = (generation.leaf.not_before, generation.leaf.not_after) if generation is not None else None
    return leaf_state(validity, datetime.now(UTC))
