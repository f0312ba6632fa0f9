"""Following a scripted source: what a healthy agent does not do, without waiting for it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from controlplane import follower as module
from controlplane.consul.catalog import Answer
from controlplane.consul.places import MAX_WATCHES
from controlplane.consul.rows import Rows
from controlplane.follower import Follower
from harness.certificates import TRUST_DOMAIN, Authority, spiffe
from harness.meshes import chain, instance, intention
from harness.servers import eventually
from policies.errors import CatalogBadAnswer, CatalogFault, CatalogForbidden, CatalogNotFound, CatalogUnreachable
from policies.identity import Leaf
from policies.intentions import Intentions
from policies.snapshot import Role, Snapshot
from policies.updates import Understood, Update
from policies.wanted import missing, wanted
from policies.watches import (
    ApiGatewayWatch,
    ChainWatch,
    EndpointsWatch,
    GatewayServicesWatch,
    IngressWatch,
    IntentionsWatch,
    RegistrationWatch,
    RootsWatch,
    RoutesWatch,
    Watch,
)

REGISTRATION = RegistrationWatch("web-proxy")
API, ROWS = ChainWatch("api", "api"), EndpointsWatch("api")


class Script:
    """Answers reads from a table; a read with the cursor of the present answer blocks until it changes."""

    def __init__(self, authority: Authority) -> None:
        self.reads: list[tuple[Watch, str]] = []
        self._index = 10
        self._changed = asyncio.Event()
        self.answers: dict[type, Any] = {
            RootsWatch: {"TrustDomain": TRUST_DOMAIN, "Roots": [{"RootCert": authority.pem}]},
            RegistrationWatch: {
                "Kind": "connect-proxy",
                "ID": "web-proxy",
                "Datacenter": "dc1",
                "Proxy": {
                    "DestinationServiceName": "web",
                    "LocalServicePort": 1,
                    "Upstreams": [{"DestinationName": "api", "LocalBindPort": 9191}],
                },
            },
            ChainWatch: chain("api"),
            EndpointsWatch: [instance("api", 1)],
            IntentionsWatch: [],
        }
        self.filtered = False
        self.late: type | None = None  # whose answer comes some rounds of the loop after the others
        self.late_by = 3

    def change(self, kind: type, answer: Any, index: int | None = None) -> None:
        self.answers[kind] = answer
        self._index = self._index + 1 if index is None else index
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def read(self, watch: Watch, cursor: str, wait: float) -> Answer:
        self.reads.append((watch, cursor))
        if cursor == str(self._index):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._changed.wait()
        answer = self.answers.get(type(watch))
        for _ in range(self.late_by if type(watch) is self.late else 0):
            await asyncio.sleep(0)
        if isinstance(answer, Exception):
            await asyncio.sleep(0)
            raise answer
        return Answer(answer, str(self._index), self.filtered)


@contextlib.asynccontextmanager
async def following(
    script: Script, authority: Authority, start: Snapshot = Snapshot(Role.SIDECAR, "web-proxy"), wait: float = 0.3
) -> AsyncIterator[Follower]:
    async def leaves() -> AsyncIterator[Leaf]:
        yield authority.leaf("web")
        await asyncio.Event().wait()

    published: list[Snapshot] = []
    follower = Follower(script, start, published.append, wait=wait)
    task = asyncio.create_task(follower.run(lambda snapshot: leaves() if snapshot.registration else None))
    try:
        yield follower
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def settled(follower: Follower) -> None:
    await eventually(lambda: not missing(follower.snapshot) and follower.snapshot.instances(ROWS) is not None)


async def test_one_answer_leads_to_the_next_watch_until_nothing_is_missing(authority: Authority) -> None:
    async with following(Script(authority), authority) as follower:
        await settled(follower)
    assert follower.snapshot.leaf is not None
    assert follower.snapshot.leaf.spiffe_id == spiffe("web")


async def test_an_index_that_goes_back_starts_over_and_is_counted(authority: Authority) -> None:
    script = Script(authority)
    async with following(script, authority) as follower:
        await settled(follower)
        script.change(EndpointsWatch, [instance("api", 1), instance("api", 2, 2)], index=3)
        await eventually(lambda: len(follower.snapshot.instances(ROWS) or ()) == 2)
        await eventually(lambda: follower.status.watches[ROWS].resets == 1)
        assert (ROWS, "") in script.reads[5:]


async def test_every_upstream_of_many_has_its_turn_within_a_round_and_a_proxys_own_watches_wait_as_ever(
    authority: Authority,
) -> None:
    script, waits = Script(authority), dict[Watch, float]()
    names = [f"s{number}" for number in range(300)]
    script.answers[RegistrationWatch]["Proxy"]["Upstreams"] = [{"DestinationName": name} for name in names]
    read = script.read

    async def noted(watch: Watch, cursor: str, wait: float) -> Answer:
        if cursor:
            waits[watch] = wait
        return await read(watch, cursor, 1.0 if cursor else 0.0)

    script.read = noted  # type: ignore[method-assign]
    async with following(script, authority, wait=25.0) as follower:
        await eventually(lambda: all(ChainWatch(name, name) in waits for name in names))
        assert set(follower.status.watches) == wanted(follower.snapshot)
    of_chains = [wait for watch, wait in waits.items() if isinstance(watch, ChainWatch)]
    assert max(of_chains) * len(names) / MAX_WATCHES <= module.ROUND_SECONDS * 1.5
    assert len(set(of_chains)) > 100, "they do not end together"
    assert waits[IntentionsWatch("web")] == 25.0


async def test_a_deny_in_a_mesh_in_motion_waits_for_one_answer_at_most_and_policy_is_asked_for_first(
    authority: Authority,
) -> None:
    script, taken = Script(authority), list[Watch]()
    names = [f"s{number}" for number in range(MAX_WATCHES)]
    script.answers[RegistrationWatch]["Proxy"]["Upstreams"] = [{"DestinationName": name} for name in names]
    async with following(script, authority) as follower:
        await eventually(
            lambda: set(follower.status.watches) == wanted(follower.snapshot) == set(follower.snapshot.heard)
        )
        first = [watch for watch, cursor in script.reads if not cursor]
        assert first.index(IntentionsWatch("web")) < first.index(ChainWatch("s0", "s0"))
        take = follower.take

        def noted(update: Update) -> None:
            if isinstance(update, Understood):
                taken.append(update.watch)
            take(update)

        follower.take = noted  # type: ignore[method-assign]
        # Everything is answered at once, and the intentions, which were asked for first, answer last.
        script.late = IntentionsWatch
        script.answers[IntentionsWatch] = [intention("web", "web", "deny")]
        script.change(EndpointsWatch, [instance("api", 1), instance("api", 2, 2)])
        await eventually(lambda: follower.snapshot.intentions is not None and follower.snapshot.intentions.rows)
        denied_at = taken.index(IntentionsWatch("web"))
        await eventually(lambda: len(taken) > len(names))
    assert denied_at <= script.late_by + 1, "the rounds until it came, and the answer that was being taken"


async def test_an_index_of_zero_is_never_asked_with(authority: Authority) -> None:
    script = Script(authority)
    script._index = 0
    async with following(script, authority) as follower:
        await settled(follower)
    assert not [cursor for _, cursor in script.reads if cursor == "0"]


@pytest.mark.parametrize(
    "error",
    [
        CatalogFault("GET /x", "No cluster leader"),
        CatalogUnreachable("GET /x", "refused"),
        CatalogBadAnswer("GET /x", "expected a list, got null"),
    ],
)
async def test_a_failure_keeps_the_last_good_answer_and_is_told_once_each_way(
    authority: Authority, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_pause", lambda _: 0.01)
    script = Script(authority)
    async with following(script, authority) as follower:
        await settled(follower)
        with capture_logs() as logs:
            script.change(EndpointsWatch, error)
            await eventually(lambda: follower.status.watches[ROWS].failures > 5)
            assert ROWS in follower.status.failing()
            assert len(follower.snapshot.instances(ROWS) or ()) == 1
            script.change(EndpointsWatch, [instance("api", 1), instance("api", 2, 2)])
            await eventually(lambda: len(follower.snapshot.instances(ROWS) or ()) == 2)
    told = [entry["event"] for entry in logs if entry.get("watch") == "instances of api"]
    assert told == ["watch_failing", "watch_recovered"]
    assert follower.status.watches[ROWS].failures == 0


async def test_a_forbidden_watch_names_the_token_as_the_likely_cause(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_pause", lambda _: 0.01)
    script = Script(authority)
    script.answers[IntentionsWatch] = CatalogForbidden("GET /x", "Permission denied")
    with capture_logs() as logs:
        async with following(script, authority) as follower:
            await eventually(follower.status.failing)
    assert "token" in logs[0]["hint"]


async def test_an_empty_answer_through_acls_is_not_taken_for_an_outage(authority: Authority) -> None:
    script = Script(authority)
    script.answers[IntentionsWatch] = [intention("web", "web", "deny")]
    async with following(script, authority) as follower:
        await settled(follower)
        with capture_logs() as logs:
            script.filtered = True
            for _ in range(3):
                script.change(EndpointsWatch, [])
                script.change(IntentionsWatch, [])
                reads = len(script.reads)
                await eventually(lambda reads=reads: len(script.reads) > reads + 4)
        assert len(follower.snapshot.instances(ROWS) or ()) == 1
        assert follower.snapshot.intentions is not None
        assert follower.snapshot.intentions.rows
        told = [entry["watch"] for entry in logs if entry["event"] == "rows_hidden"]
        assert sorted(told) == ["instances of api", "intentions of web"], "once each"
        script.filtered = False
        script.change(EndpointsWatch, [])
        script.change(IntentionsWatch, [])
        await eventually(lambda: follower.snapshot.instances(ROWS) == ())
        await eventually(lambda: follower.snapshot.intentions == Intentions())


async def test_a_wildcard_listener_keeps_its_services_when_acls_hide_them(authority: Authority) -> None:
    script = Script(authority)
    registration = {"Kind": "ingress-gateway", "ID": "edge", "Service": "edge", "Datacenter": "dc1", "Proxy": {}}
    listeners = [{"Port": 8080, "Protocol": "http", "Services": [{"Name": "*"}]}]
    script.answers |= {
        RegistrationWatch: registration,
        IngressWatch: {"Kind": "ingress-gateway", "Name": "edge", "Listeners": listeners},
        GatewayServicesWatch: [{"Service": {"Name": "api"}, "Port": 8080, "Protocol": "http"}],
    }
    async with following(script, authority, Snapshot(Role.INGRESS, "edge")) as follower:
        await eventually(lambda: follower.snapshot.instances(ROWS) is not None)
        with capture_logs() as logs:
            script.filtered = True
            script.change(GatewayServicesWatch, [])
            await eventually(lambda: any(entry["event"] == "rows_hidden" for entry in logs))
        assert API in follower.status.watches, "the service is still exposed"
        script.filtered = False
        script.change(GatewayServicesWatch, [])
        await eventually(lambda: API not in follower.status.watches)


async def test_a_token_that_may_not_see_routes_is_told(authority: Authority) -> None:
    script = Script(authority)
    script.answers |= {
        RegistrationWatch: {"Kind": "api-gateway", "ID": "gw", "Service": "gw", "Datacenter": "dc1", "Proxy": {}},
        ApiGatewayWatch: {"Kind": "api-gateway", "Name": "gw", "Listeners": []},
        RoutesWatch: [],
    }
    script.filtered = True
    with capture_logs() as logs:
        async with following(script, authority, Snapshot(Role.API, "gw")):
            await eventually(lambda: [entry["event"] for entry in logs].count("rows_hidden") >= 2)
    told = [entry["hint"] for entry in logs if entry["event"] == "rows_hidden"]
    assert told == ["the Consul token lacks mesh:read"] * 2, "of http-routes and of tcp-routes"


async def test_after_the_agent_was_away_its_fresh_checks_are_not_believed_at_once(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_pause", lambda _: 0.01)
    monkeypatch.setattr(module, "SHAKEN_SECONDS", 1.5)
    script = Script(authority)
    async with following(script, authority) as follower:
        await settled(follower)
        script.change(EndpointsWatch, CatalogUnreachable("GET /x", "refused"))
        await eventually(follower.status.failing)
        script.change(EndpointsWatch, [instance("api", 1, status="critical")])
        await eventually(lambda: not follower.status.failing())
        assert [one.critical for one in follower.snapshot.instances(ROWS) or ()] == [False]
        await eventually(lambda: [one.critical for one in follower.snapshot.instances(ROWS) or ()] == [True])


async def test_a_server_that_is_still_reading_its_log_is_not_believed(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restarted server may answer from a state that is older than what was heard of it."""
    monkeypatch.setattr(module, "_pause", lambda _: 0.01)
    monkeypatch.setattr(module, "SHAKEN_SECONDS", 1.5)
    script = Script(authority)
    allowed = [{"SourceName": "web", "DestinationName": "web", "Action": "allow", "Precedence": 9}]
    async with following(script, authority) as follower:
        script.change(IntentionsWatch, allowed, index=50)
        await eventually(lambda: follower.snapshot.intentions and follower.snapshot.intentions.rows)
        script.change(IntentionsWatch, CatalogUnreachable("GET /x", "refused"), index=50)
        await eventually(follower.status.failing)
        script.change(IntentionsWatch, [], index=7)
        before = len(script.reads)
        await eventually(lambda: len(script.reads) > before + 5)
        assert follower.snapshot.intentions is not None
        assert follower.snapshot.intentions.rows
        # Who wiped it meant it: after a while the lower index counts.
        await eventually(lambda: not (follower.snapshot.intentions and follower.snapshot.intentions.rows))


async def test_a_registration_that_is_forgotten_is_noticed(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MISSING_REGISTRATION_SECONDS", 0.01)
    script = Script(authority)
    script.answers[RegistrationWatch], kept = CatalogNotFound("GET /x", "none"), script.answers[RegistrationWatch]
    async with following(script, authority) as follower:
        await eventually(lambda: len(script.reads) > 5)
        assert not follower.status.registration_missing.is_set(), "it was never there"
        script.change(RegistrationWatch, kept)
        await settled(follower)
        script.change(RegistrationWatch, CatalogNotFound("GET /x", "none"))
        async with asyncio.timeout(10):
            await follower.status.registration_missing.wait()
        assert follower.snapshot.registration is not None


async def test_what_is_no_longer_wanted_is_no_longer_read(authority: Authority) -> None:
    script = Script(authority)
    async with following(script, authority) as follower:
        await settled(follower)
        without = {**script.answers[RegistrationWatch]}
        without["Proxy"] = {**without["Proxy"], "Upstreams": []}
        script.change(RegistrationWatch, without)
        await eventually(lambda: API not in follower.status.watches and ROWS not in follower.status.watches)


async def test_a_busy_table_is_read_no_faster_than_its_bucket_fills(authority: Authority) -> None:
    script = Script(authority)
    async with following(script, authority) as follower:
        await settled(follower)
        before = len([1 for watch, _ in script.reads if watch == ROWS])
        deadline = asyncio.get_running_loop().time() + 1.0
        while asyncio.get_running_loop().time() < deadline:
            script.change(EndpointsWatch, [instance("api", 1)])
            await asyncio.sleep(0.001)
        reads = len([1 for watch, _ in script.reads if watch == ROWS]) - before
    assert reads <= module.BURST + module.READS_PER_SECOND * 1.0 + 3


def many(count: int, status: str = "passing") -> Rows:
    rows = [instance("api", 1000 + number, number, status=status) for number in range(count)]
    return Rows("GET /x", json.dumps(rows).encode())


async def test_many_rows_are_decoded_where_they_are_understood_and_held_once(authority: Authority) -> None:
    script = Script(authority)
    script.answers[EndpointsWatch] = many(200)
    async with following(script, authority) as follower:
        await settled(follower)
        before = follower.snapshot.instances(ROWS)
        assert before is not None
        assert len(before) == 200
        script.change(EndpointsWatch, many(201))
        await eventually(lambda: len(follower.snapshot.instances(ROWS) or ()) == 201)
        after = {one.id: one for one in follower.snapshot.instances(ROWS) or ()}
        assert all(after[one.id] is one for one in before), "what has not changed is held once"
        snapshot = follower.snapshot
        reads = len(script.reads)
        script.change(EndpointsWatch, many(201))
        await eventually(lambda: len(script.reads) > reads)
        assert follower.snapshot is snapshot


async def test_many_rows_that_break_off_are_a_failed_read(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_pause", lambda _: 0.01)
    script = Script(authority)
    async with following(script, authority) as follower:
        await settled(follower)
        with capture_logs() as logs:
            script.change(EndpointsWatch, Rows("GET /x", b'[{"Service": {}, "Node": {}}, '))
            await eventually(lambda: follower.status.watches[ROWS].failures > 2)
            assert len(follower.snapshot.instances(ROWS) or ()) == 1
            script.change(EndpointsWatch, many(3))
            await eventually(lambda: len(follower.snapshot.instances(ROWS) or ()) == 3)
    told = [entry["event"] for entry in logs if entry.get("watch") == "instances of api"]
    assert told == ["watch_failing", "watch_recovered"]
