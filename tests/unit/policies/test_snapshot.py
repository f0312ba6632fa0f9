from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.certificates import Authority
from harness.meshes import (
    Json,
    Member,
    chain,
    ingress,
    instance,
    intention,
    sidecar,
    split_chain,
    target_row,
    upstream,
)
from policies.edge.server_certificates import CertificateReference, CertificateUpdate, ClientCaUpdate, EdgeMaterial
from policies.intentions import Action
from policies.reducer import apply
from policies.snapshot import Role, Snapshot
from policies.updates import Heard, LeafUpdate
from policies.wanted import missing, waiting, wanted
from policies.watches import (
    ChainWatch,
    DefaultActionWatch,
    EndpointsWatch,
    GatewayServicesWatch,
    IngressWatch,
    IntentionsWatch,
    MeshWatch,
    RegistrationWatch,
    RootsWatch,
    name_of,
)


def test_a_new_proxy_asks_for_roots_mesh_and_its_registration() -> None:
    empty = Snapshot(Role.SIDECAR, "web-sidecar-proxy")
    assert wanted(empty) == {RootsWatch(), MeshWatch(), RegistrationWatch("web-sidecar-proxy")}
    assert set(missing(empty)) == {"CA roots", "leaf certificate", "mesh entry", "registration web-sidecar-proxy"}


def test_the_registration_tells_what_else_to_watch(authority: Authority) -> None:
    member = sidecar("web", authority, upstreams={"api": 9191})
    asked = wanted(member.snapshot)
    assert {IntentionsWatch("web"), DefaultActionWatch("web"), ChainWatch("api", "api")} <= asked


def test_a_chain_tells_which_instances_to_watch(authority: Authority) -> None:
    member = sidecar("web", authority, upstreams={"api": 9191})
    member.hear(ChainWatch("api", "api"), split_chain("api", {"v1": 50, "v2": 50}))
    assert EndpointsWatch("api") in wanted(member.snapshot)


def test_a_sidecar_watches_what_it_needs_and_nothing_else(authority: Authority) -> None:
    member = sidecar("web", authority, upstreams={"api": 9191, "db": 9292})
    upstream(member, "api", [1])
    upstream(member, "db", [2], both("db", "backup"))
    upstream(member, "stranger", [3])
    assert wanted(member.snapshot) == {
        RootsWatch(),
        MeshWatch(),
        RegistrationWatch("web-sidecar-proxy"),
        IntentionsWatch("web"),
        DefaultActionWatch("web"),
        ChainWatch("api", "api"),
        ChainWatch("db", "db"),
        EndpointsWatch("api"),
        EndpointsWatch("db"),
        EndpointsWatch("backup"),
    }
    assert set(member.snapshot.heard) == wanted(member.snapshot) - {EndpointsWatch("backup")}
    hear_registration(member, {"api": 9191})
    assert not {watch for watch in wanted(member.snapshot) if "db" in name_of(watch) or "backup" in name_of(watch)}
    assert set(member.snapshot.heard) == wanted(member.snapshot)


def hear_registration(member: Member, upstreams: dict[str, int]) -> None:
    watch = RegistrationWatch(member.proxy_id)
    answer = member.answers[watch]
    stanzas = [{"DestinationName": name, "LocalBindPort": port} for name, port in upstreams.items()]
    member.hear(watch, {**answer, "Proxy": {**answer["Proxy"], "Upstreams": stanzas}})


def both(service: str, other: str) -> Json:
    """Return the chain of a service that fails over to another one."""
    whole, target = chain(service), target_row(other)
    whole["Nodes"][whole["StartNode"]]["Resolver"]["Failover"] = {"Targets": [target["ID"]]}
    whole["Targets"][target["ID"]] = target
    return whole


def test_a_chain_that_drops_a_target_drops_its_watch_when_no_other_chain_needs_it(authority: Authority) -> None:
    member = sidecar("web", authority, upstreams={"a": 1, "b": 2})
    upstream(member, "a", [1], both("a", "shared"))
    upstream(member, "b", [2], both("b", "shared"))
    shared = EndpointsWatch("shared")
    member.hear(shared, [instance("shared", 3)])
    member.hear(ChainWatch("a", "a"), chain("a"))
    assert shared in wanted(member.snapshot), "b fails over to it"
    assert member.snapshot.instances(shared) is not None
    member.hear(ChainWatch("b", "b"), chain("b"))
    assert shared not in wanted(member.snapshot)
    assert member.snapshot.instances(shared) is None
    member.hear(shared, [instance("shared", 3)])
    assert member.snapshot.instances(shared) is None, "an answer that comes late is not kept"
    member.hear(ChainWatch("b", "b"), both("b", "shared"))
    assert waiting(member.snapshot) == (shared,)


def test_an_answer_about_instances_leaves_what_is_asked_for_as_it_is(authority: Authority) -> None:
    member = upstream(sidecar("web", authority, upstreams={"api": 9191}), "api", [1])
    before = member.snapshot
    member.hear(EndpointsWatch("api"), [instance("api", 2)]).hear(IntentionsWatch("web"), [intention("a", "web")])
    member.hear(ChainWatch("api", "api"), split_chain("api", {"v1": 50, "v2": 50}))
    assert member.snapshot.asked is before.asked, "nobody has to look at all watches"


def test_an_intention_that_has_not_changed_is_the_very_object_of_before(authority: Authority) -> None:
    rows = [intention(source, "web", "allow") for source in "abc"]
    member = sidecar("web", authority, intentions=rows)
    before = member.snapshot.intentions
    member.hear(IntentionsWatch("web"), [rows[2], intention("b", "web", "deny"), rows[0]])
    after = member.snapshot.intentions
    assert before is not None
    assert after is not None
    assert [new is old for new, old in zip(after.rows, before.rows, strict=True)] == [True, False, True]


def test_a_target_elsewhere_is_asked_for_there(authority: Authority) -> None:
    member = sidecar("web", authority, upstreams={"api": 9191})
    answer = chain("api")
    next(iter(answer["Targets"].values()))["Datacenter"] = "dc2"
    member.hear(ChainWatch("api", "api"), answer)
    assert EndpointsWatch("api", "dc2") in wanted(member.snapshot)


def test_a_gateway_watches_its_entry_and_the_chains_of_what_it_exposes(authority: Authority) -> None:
    member = ingress("edge", authority, [{"Port": 8080, "Protocol": "http", "Services": [{"Name": "web"}]}])
    asked = wanted(member.snapshot)
    assert {IngressWatch("edge"), GatewayServicesWatch("edge"), ChainWatch("web", "web")} <= asked
    assert not any(isinstance(watch, IntentionsWatch) for watch in asked)


def test_nothing_is_missing_once_everything_needed_was_heard(authority: Authority) -> None:
    member = sidecar("web", authority, upstreams={"api": 9191})
    assert missing(member.snapshot) == ()
    assert [name_of(watch) for watch in waiting(member.snapshot)] == ["discovery chain of api"]
    upstream(member, "api", [1])
    assert waiting(member.snapshot) == ()


def test_an_empty_answer_is_a_heard_one(authority: Authority) -> None:
    member = sidecar("web", authority, upstreams={"api": 9191})
    upstream(member, "api", [])
    assert member.snapshot.instances(EndpointsWatch("api")) == ()


def test_an_equal_answer_gives_the_very_same_snapshot(authority: Authority) -> None:
    member = upstream(sidecar("web", authority, upstreams={"api": 9191}), "api", [1])
    again = apply(member.snapshot, Heard(EndpointsWatch("api"), [instance("api", 1)]))
    assert again is member.snapshot
    assert member.snapshot.leaf is not None
    assert apply(member.snapshot, LeafUpdate(member.snapshot.leaf)) is member.snapshot


@pytest.mark.parametrize(
    ("watch", "garbage"),
    [
        (RootsWatch(), {}),
        (RootsWatch(), "text"),
        (RegistrationWatch("web-sidecar-proxy"), {"Kind": ""}),
        (ChainWatch("api", "api"), {"StartNode": "nowhere"}),
        (EndpointsWatch("api"), [{"Service": {"Port": "many"}}]),
        (EndpointsWatch("api"), [{"Service": {"Port": float("inf")}}]),
        (IntentionsWatch("web"), [intention("api", "web") | {"Precedence": float("inf")}]),
    ],
)
def test_an_answer_that_cannot_be_understood_leaves_the_last_good_one(
    authority: Authority, watch: Any, garbage: Any
) -> None:
    member = upstream(sidecar("web", authority, upstreams={"api": 9191}), "api", [1])
    before = member.snapshot.heard
    after = apply(member.snapshot, Heard(watch, garbage))
    assert after.heard == before
    assert after.problems[watch][0].fix == "the last good answer stays"
    assert apply(after, Heard(watch, garbage)) is after


def test_a_shaken_answer_keeps_the_health_that_was_heard_before(authority: Authority) -> None:
    member = upstream(sidecar("web", authority, upstreams={"api": 9191}), "api", [1])
    watch, worse = EndpointsWatch("api"), [instance("api", 1, status="critical")]
    shaken = apply(member.snapshot, Heard(watch, worse, shaken=True))
    assert shaken is member.snapshot
    (after,) = apply(shaken, Heard(watch, worse)).instances(watch) or ()
    assert after.critical
    assert apply(shaken, Heard(MeshWatch(), None, shaken=True)) is shaken


def test_a_default_that_cannot_be_known_is_the_last_known_one_or_deny(authority: Authority) -> None:
    watch = DefaultActionWatch("web")
    member = sidecar("web", authority, default_allow=True)
    assert apply(member.snapshot, Heard(watch, None)) is member.snapshot
    assert member.snapshot.default_action is Action.ALLOW
    never = replace(member.snapshot, heard={key: value for key, value in member.snapshot.heard.items() if key != watch})
    unknown = apply(never, Heard(watch, None))
    assert unknown.default_action is Action.DENY
    assert "hides the agent's default" in str(unknown.problems[watch][0])
    assert apply(unknown, Heard(watch, None)) is unknown
    known = apply(unknown, Heard(watch, True))
    assert (known.default_action, known.problems) == (Action.ALLOW, {})


def test_a_good_answer_ends_the_problem(authority: Authority) -> None:
    member = upstream(sidecar("web", authority, upstreams={"api": 9191}), "api", [1])
    broken = apply(member.snapshot, Heard(ChainWatch("api", "api"), {}))
    assert apply(broken, Heard(ChainWatch("api", "api"), chain("api"))).problems == {}


def test_a_route_that_asks_for_something_unknown_is_a_problem_until_it_no_longer_does(authority: Authority) -> None:
    def router(http: Json) -> Json:
        plain = chain("api")
        routes = [
            {"Definition": {"Match": {"HTTP": {"PathPrefix": "/a"}}}, "NextNode": plain["StartNode"]},
            {"Definition": {"Match": {"HTTP": http}}, "NextNode": plain["StartNode"]},
        ]
        nodes = {**plain["Nodes"], "router:api": {"Type": "router", "Routes": routes}}
        return {**plain, "StartNode": "router:api", "Nodes": nodes}

    member = upstream(sidecar("web", authority, upstreams={"api": 9191}), "api", [1])
    watch = ChainWatch("api", "api")
    shown = apply(member.snapshot, Heard(watch, router({"PathPrefix": "/b", "Cookie": "x"})))
    (problem,) = shown.problems[watch]
    assert problem.where == "discovery chain of api, route 2"
    assert "Cookie is not understood" in problem.message
    assert apply(shown, Heard(watch, router({"PathPrefix": "/b"}))).problems == {}


def test_a_target_that_wants_a_mesh_gateway_is_a_problem(authority: Authority) -> None:
    member = upstream(sidecar("web", authority, upstreams={"api": 9191}), "api", [1])
    plain, watch = chain("api"), ChainWatch("api", "api")
    far = {
        name: {**row, "Datacenter": "dc2", "MeshGateway": {"Mode": "local"}} for name, row in plain["Targets"].items()
    }
    (problem,) = apply(member.snapshot, Heard(watch, {**plain, "Targets": far})).problems[watch]
    assert problem.message == "mesh gateways are not supported"


def test_what_is_no_longer_asked_for_is_forgotten(authority: Authority) -> None:
    member = upstream(sidecar("web", authority, upstreams={"api": 9191}), "api", [1])
    without: dict[str, Any] = {**member.answers[RegistrationWatch("web-sidecar-proxy")]}
    without["Proxy"] = {**without["Proxy"], "Upstreams": []}
    after = apply(member.snapshot, Heard(RegistrationWatch("web-sidecar-proxy"), without))
    assert after.chain(ChainWatch("api", "api")) is None
    assert after.instances(EndpointsWatch("api")) is None


def test_a_leaf_update_takes_the_place_of_the_old_leaf(authority: Authority) -> None:
    member = sidecar("web", authority)
    first = member.snapshot.leaf
    member.renew()
    assert member.snapshot.leaf is not None
    assert member.snapshot.leaf != first


def test_the_agents_default_is_heard_as_an_action(authority: Authority) -> None:
    assert sidecar("web", authority, default_allow=True).snapshot.default_action is Action.ALLOW
    assert sidecar("web", authority).snapshot.default_action is Action.DENY


def test_before_the_registration_nothing_that_depends_on_it_is_known() -> None:
    empty = Snapshot(Role.INGRESS, "edge")
    assert empty.intentions is None
    assert empty.default_action is None
    assert empty.ingress is None
    assert empty.gateway_services is None


def test_replaying_the_same_updates_gives_the_same_snapshot(authority: Authority) -> None:
    rows = [intention("web", "api", "allow"), intention("*", "api", "deny")]
    one = sidecar("api", authority, intentions=rows)
    other = sidecar("api", authority, intentions=rows[::-1])
    assert one.snapshot.heard == other.snapshot.heard


def test_every_watch_has_words() -> None:
    watches = (
        RootsWatch(),
        RegistrationWatch("p"),
        IntentionsWatch("s"),
        DefaultActionWatch("s"),
        MeshWatch(),
        ChainWatch("u", "s"),
        EndpointsWatch("s"),
        EndpointsWatch("s", "dc2"),
        IngressWatch("g"),
        GatewayServicesWatch("g"),
    )
    assert [name_of(watch) for watch in watches] == [
        "CA roots",
        "registration p",
        "intentions of s",
        "default action for s",
        "mesh entry",
        "discovery chain of u",
        "instances of s",
        "instances of s in dc2",
        "ingress-gateway entry g",
        "services of gateway g",
    ]


def test_what_the_edge_is_made_with_is_kept_until_the_next_or_until_nobody_asks() -> None:
    start = Snapshot(Role.INGRESS, "edge-1")
    reference, certificate = CertificateReference("own", "web"), Authority().server("web.com")
    with_it = apply(start, CertificateUpdate(reference, certificate))
    assert with_it.material == EdgeMaterial({reference: certificate})
    assert apply(with_it, CertificateUpdate(reference, certificate)) is with_it
    assert apply(with_it, CertificateUpdate(reference, None)) == start
    assert apply(start, CertificateUpdate(reference, None)) is start
    with_ca = apply(start, ClientCaUpdate("ca.pem", "PEM"))
    assert with_ca.material == EdgeMaterial(client_cas={"ca.pem": "PEM"})
    assert apply(with_ca, ClientCaUpdate("ca.pem", None)) == start
