"""The filter chains of a terminating gateway: one for each linked service and subset, each by itself."""

from __future__ import annotations

from typing import Any

import pytest

from harness.certificates import TRUST_DOMAIN, Authority, spiffe
from harness.meshes import Member, intention, link, outside, terminating
from policies.compiler import compile_table
from policies.egress.links import Origination
from policies.intentions import Action
from policies.table import FilterChain, Table
from policies.wanted import missing, waiting, wanted
from policies.watches import (
    DefaultActionWatch,
    DefaultsWatch,
    GatewayServicesWatch,
    IntentionsWatch,
    MeshWatch,
    OutsideWatch,
    ResolverWatch,
    TerminatingWatch,
    name_of,
)

SUFFIX = f"default.dc1.internal.{TRUST_DOMAIN}"
SUBSETS = {"Subsets": {"v1": {"Filter": "Service.Meta.version == v1"}, "new": {"Filter": "Service.Meta.version == v2"}}}


def row(name: str) -> dict[str, Any]:
    return {"Service": {"Name": name}, "FromWildcard": True}


@pytest.fixture
def gateway(authority: Authority) -> Member:
    return terminating("egress", authority, [{"Name": "ext"}, {"Name": "mail", "CAFile": "/ca.pem"}])


def chains(table: Table) -> dict[str, FilterChain]:
    assert table.egress is not None
    return {sni.removesuffix(f".{SUFFIX}"): chain for sni, chain in table.egress.chains.items()}


def compiled(gateway: Member, previous: Table | None = None) -> dict[str, FilterChain]:
    return chains(compile_table(gateway.snapshot, previous)[0])


def test_a_linked_service_is_answered_for_under_its_own_name(gateway: Member) -> None:
    link(gateway, "ext", [8080], intentions=[intention("web", "ext", "allow")])
    link(gateway, "mail", [25], protocol="")
    found = chains(gateway.table())
    ext, mail = found["ext"], found["mail"]
    assert (ext.sni, ext.spiffe_id, ext.protocol) == (f"ext.{SUFFIX}", spiffe("ext"), "http")
    assert ext.intentions.for_source("web", ext.default).connection.allowed
    assert not mail.intentions.for_source("web", mail.default).connection.allowed
    assert [(one.address, one.port) for one in ext.cluster.endpoints] == [("127.0.0.1", 8080)]
    assert (ext.cluster.origination, mail.cluster.origination) == (None, Origination("/ca.pem"))
    assert (mail.protocol, ext.default, ext.cluster.spiffe_id) == ("tcp", Action.DENY, None)


def test_every_subset_has_its_chain(gateway: Member) -> None:
    link(gateway, "ext", resolver=SUBSETS | {"ConnectTimeout": "1s", "RequestTimeout": "4s"})
    rows = [outside("ext", 1, 1, Meta={"version": "v1"}), outside("ext", 2, 2, Meta={"version": "v2"})]
    gateway.hear(OutsideWatch("ext"), rows)
    found = compiled(gateway)
    ports = {name: [one.port for one in chain.cluster.endpoints] for name, chain in found.items()}
    assert ports == {"ext": [1, 2], "v1.ext": [1], "new.ext": [2]}
    assert {chain.spiffe_id for chain in found.values()} == {spiffe("ext")}
    assert {(chain.cluster.connect_timeout, chain.request_timeout) for chain in found.values()} == {(1.0, 4.0)}


def test_critical_instances_get_no_traffic(gateway: Member) -> None:
    link(gateway, "ext")
    gateway.hear(OutsideWatch("ext"), [outside("ext", 1, 1, "critical"), outside("ext", 2, 2, "warning")])
    assert [one.port for one in compiled(gateway)["ext"].cluster.endpoints] == [2]


@pytest.mark.parametrize("watch", [IntentionsWatch, OutsideWatch, ResolverWatch, DefaultsWatch])
def test_a_service_is_closed_until_everything_is_known_of_it(gateway: Member, watch: Any) -> None:
    answers: dict[Any, Any] = {
        IntentionsWatch("ext"): [intention("*", "ext", "allow")],
        OutsideWatch("ext"): [],
        ResolverWatch("ext"): None,
        DefaultsWatch("ext"): None,
    }
    link(gateway, "mail")
    for asked, answer in answers.items():
        if not isinstance(asked, watch):
            gateway.hear(asked, answer)
    assert set(compiled(gateway)) == {"mail"}
    assert [name_of(one) for one in waiting(gateway.snapshot)] == [name_of(watch("ext"))]
    assert missing(gateway.snapshot) == ()


def test_a_change_of_one_leaves_the_others_what_they_are(gateway: Member) -> None:
    link(gateway, "ext", [1], resolver=SUBSETS)
    link(gateway, "mail", [2])
    first, _ = compile_table(gateway.snapshot)
    gateway.hear(IntentionsWatch("mail"), [intention("web", "mail", "allow")])
    second, _ = compile_table(gateway.snapshot, first)
    assert chains(second)["mail"] is not chains(first)["mail"]
    assert chains(second)["mail"].cluster is chains(first)["mail"].cluster
    assert all(chains(second)[name] is chains(first)[name] for name in ("ext", "v1.ext", "new.ext"))
    assert compile_table(gateway.snapshot, second)[0].egress is second.egress


def test_a_subset_whose_filter_is_bad_keeps_its_instances_under_new_intentions(gateway: Member) -> None:
    link(gateway, "ext", resolver=SUBSETS)
    gateway.hear(OutsideWatch("ext"), [outside("ext", 1, Meta={"version": "v1"})])
    before, _ = compile_table(gateway.snapshot)
    gateway.hear(ResolverWatch("ext"), {"Subsets": {"v1": {"Filter": "Service.Nope == v1"}, "v2": {"Filter": "("}}})
    gateway.hear(IntentionsWatch("ext"), [intention("web", "ext", "allow")])
    for _ in range(2):
        after, problems = compile_table(gateway.snapshot, before)
        told = [f"service-resolver ext subset {name}" for name in ("v1", "v2")]
        assert [problem.where for problem in problems] == told
        assert set(chains(after)) == {"ext", "v1.ext"}
        chain = chains(after)["v1.ext"]
        assert [one.port for one in chain.cluster.endpoints] == [1]
        assert chain.intentions.for_source("web", chain.default).connection.allowed
        before = after


def test_a_service_that_is_named_like_a_subset_of_another_does_not_take_its_place(authority: Authority) -> None:
    gateway = terminating("egress", authority, [{"Name": "ext"}, {"Name": "v1.ext"}])
    link(gateway, "ext", [1], resolver={"Subsets": {"v1": {}}})
    link(gateway, "v1.ext", [2])
    first, problems = compile_table(gateway.snapshot)
    assert (chains(first)["v1.ext"].service, [problem.where for problem in problems]) == (
        "ext",
        ["linked service v1.ext"],
    )
    gateway.hear(ResolverWatch("ext"), None)
    second, problems = compile_table(gateway.snapshot, first)
    assert (chains(second)["v1.ext"].service, problems) == ("v1.ext", ())
    gateway.hear(ResolverWatch("ext"), {"Subsets": {"v1": {"Filter": "Service.Nope == 1"}}})
    third, _ = compile_table(gateway.snapshot, second)  # which has no instances of its own to keep
    assert (chains(third)["v1.ext"].service, len(chains(third)["v1.ext"].cluster.endpoints)) == ("v1.ext", 1)


def test_a_subset_gets_its_server_name_back_from_a_service_that_had_it(authority: Authority) -> None:
    gateway = terminating("egress", authority, [{"Name": "ext"}, {"Name": "a.ext"}])
    link(gateway, "ext", [1], resolver={"Subsets": {"a": {}}})
    link(gateway, "a.ext", [2])
    first, _ = compile_table(gateway.snapshot)
    assert chains(first)["a.ext"].service == "a.ext"
    gateway.hear(TerminatingWatch("egress"), {"Name": "egress", "Services": [{"Name": "ext"}]})
    assert compiled(gateway, first)["a.ext"].service == "ext"


def test_services_come_and_go_with_the_wildcard(authority: Authority) -> None:
    gateway = terminating("egress", authority, [{"Name": "*"}], [row("a"), row(""), row("b")])
    for name in ("a", "b"):
        link(gateway, name, [1])
    assert set(compiled(gateway)) == {"a", "b"}
    assert set(gateway.snapshot.leaves) == {"a", "b"}
    gateway.hear(GatewayServicesWatch("egress"), [row("b"), row("c")])
    assert set(compiled(gateway)) == {"b"}
    assert set(gateway.snapshot.leaves) == {"b"}
    assert OutsideWatch("a") not in wanted(gateway.snapshot)
    assert OutsideWatch("c") in wanted(gateway.snapshot)
    gateway.hear(TerminatingWatch("egress"), None)
    assert compiled(gateway) == {}
    assert gateway.snapshot.leaves == {}


def test_a_leaf_of_what_is_not_linked_is_not_kept(gateway: Member) -> None:
    before = gateway.snapshot
    assert gateway.renew_linked("other").snapshot is before


def test_defaults_and_the_mesh_entry_count(gateway: Member) -> None:
    link(gateway, "ext", protocol="")
    gateway.hear(DefaultsWatch(""), {"Config": {"protocol": "http"}})
    gateway.hear(DefaultActionWatch("egress"), True)
    gateway.hear(MeshWatch(), {"HTTP": {"SanitizeXForwardedClientCert": True}})
    ext = compiled(gateway)["ext"]
    assert (ext.protocol, ext.default, ext.sanitize_xfcc) == ("http", Action.ALLOW, True)


def test_an_sni_is_compared_in_lower_case(authority: Authority) -> None:
    gateway = link(terminating("egress", authority, [{"Name": "Ext"}]), "Ext", [1])
    assert compiled(gateway)["ext"].spiffe_id == spiffe("Ext")


def named(gateway: Member) -> list[tuple[str, str]]:
    link(gateway, "ext")
    rows = [
        outside("ext", 443, number, Address=address)
        for number, address in enumerate(("10.0.0.1", "one.example.com", "two.example.com"), 1)
    ]
    gateway.hear(OutsideWatch("ext"), rows)
    return [(one.address, one.host) for one in compiled(gateway)["ext"].cluster.endpoints]


def test_of_host_names_and_ips_one_name_is_dialled_or_with_strict_dns_all(
    gateway: Member, authority: Authority
) -> None:
    assert named(gateway) == [("one.example.com", "one.example.com")]
    strict = terminating("egress", authority, [{"Name": "ext"}], config={"envoy_dns_discovery_type": "strict_dns"})
    assert named(strict) == [("one.example.com", "one.example.com"), ("two.example.com", "two.example.com")]
    assert compiled(strict)["ext"].cluster.strict_dns


@pytest.mark.parametrize(
    ("config", "entry", "seconds"),
    [
        ({}, None, 5.0),
        ({"connect_timeout_ms": 250}, None, 0.25),
        ({"connect_timeout_ms": 250}, {"ConnectTimeout": "2s"}, 2.0),
        ({"connect_timeout_ms": 0}, None, 5.0),
    ],
)
def test_the_gateways_own_connect_timeout_holds_where_the_resolver_has_none(
    authority: Authority, config: dict[str, object], entry: dict[str, object] | None, seconds: float
) -> None:
    gateway = terminating("egress", authority, [{"Name": "ext"}], config=config)
    link(gateway, "ext", [443], resolver=entry)
    assert compiled(gateway)["ext"].cluster.connect_timeout == seconds


@pytest.mark.parametrize(
    ("protocol", "alpn"), [("tcp", ""), ("", ""), ("http", "http/1.1"), ("http2", "h2"), ("grpc", "h2")]
)
def test_tls_offers_what_callers_speak(gateway: Member, protocol: str, alpn: str) -> None:
    link(gateway, "mail", [25], protocol=protocol)
    assert compiled(gateway)["mail"].cluster.origination == Origination("/ca.pem", alpn=alpn)
