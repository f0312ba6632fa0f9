"""Which hosts outside may be asked for through the gateway as a forward proxy, and by whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from harness.certificates import TRUST_DOMAIN, Authority
from harness.meshes import Json, Member, intention, link, outside, terminating
from policies.compiler import compile_table
from policies.egress.forward_proxy import ForwardRules, normal_host, parse_authority
from policies.intentions import Action, Decision
from policies.table import Egress, HostPort
from policies.watches import IntentionsWatch, OutsideWatch

# --- what is asked for ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("api.example.com:443", "api.example.com", 443),
        ("API.Example.COM.:443", "api.example.com", 443),
        ("api.example.com", "api.example.com", 80),
        ("api.example.com:", "api.example.com", 80),
        ("192.0.2.1:8443", "192.0.2.1", 8443),
        ("[2001:DB8:0::1]:443", "[2001:db8::1]", 443),
        ("[::1]", "[::1]", 80),
        ("x_y-z.internal:65535", "x_y-z.internal", 65535),
    ],
)
def test_hosts_are_compared_in_one_form(text: str, host: str, port: int) -> None:
    assert parse_authority(text, 80) == HostPort(host, port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":443",
        "user@api.example.com:443",
        "api.example.com:0",
        "api.example.com:65536",
        "api.example.com:0443",
        "api.example.com:4 43",
        "api.example.com:+443",
        "api..example.com:443",
        ".example.com:443",
        "-a.example.com:1",
        "api.example.com..:443",
        "api%2eexample.com:443",
        "[fe80::1%25eth0]:443",
        "[::1:443",
        "::1:443",
        "127.1:443",
        "0127.0.0.1:443",
        "2130706433:443",
        "127.0.0.1.1:80",
        "api.example.com:443:443",
        "a b:1",
        "\uff41pi.example.com:1",
        "a/b:1",
        "a?b:1",
        "a#b:1",
        "a\\b:1",
        "*.example.com:443",
        "a" * 254 + ":1",
    ],
)
def test_what_is_no_host_and_port_is_nobodys(text: str) -> None:
    assert parse_authority(text, 80) is None


def test_a_tunnel_needs_a_port() -> None:
    assert parse_authority("api.example.com") is None
    assert parse_authority("[::1]") is None
    assert parse_authority("api.example.com:") is None


def test_an_address_in_hexadecimal_is_a_name_like_any_other() -> None:
    assert normal_host("0x7f000001") == "0x7f000001"


# --- whose it is ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """A request's fields, as far as they are looked at."""

    host: str

    def get_all(self, name: str) -> Sequence[str]:
        return [self.host] if name == "host" else ()


PROXY = {"forward_proxy": True}
LINKS: list[Json] = [
    {"Name": "ext", "CAFile": "/ca.pem", "SNI": "public.example.com"},
    {"Name": "mail"},
    {"Name": "db"},
]


@pytest.fixture
def gateway(authority: Authority) -> Member:
    member = terminating("egress", authority, LINKS, config=PROXY)
    link(member, "ext", intentions=[intention("web", "ext", "allow")])
    member.hear(
        OutsideWatch("ext"),
        [
            outside("ext", 443, 1, Address="one.example.com"),
            outside("ext", 8443, 2, Address="Two.Example.com"),
            outside("ext", 443, 3, Address="192.0.2.3"),
            outside("ext", 443, 4, "critical", Address="sick.example.com"),
        ],
    )
    link(member, "mail", protocol="tcp", intentions=[intention("*", "mail", "allow"), intention("bad", "mail", "deny")])
    member.hear(OutsideWatch("mail"), [outside("mail", 25, Address="mail.example.com")])
    permissions = [{"Action": "allow", "HTTP": {"PathPrefix": "/ok"}}]
    link(member, "db", intentions=[intention("web", "db", permissions=permissions)])
    return member.hear(OutsideWatch("db"), [outside("db", 80, Address="db.example.com")])


def egress(gateway: Member) -> Egress:
    found = compile_table(gateway.snapshot)[0].egress
    assert found is not None
    return found


def ask(gateway: Member, what: str, source: str = "web") -> Decision:
    method, host, path = (*what.split(" "), "/")[:3]
    return ForwardRules(egress(gateway)).for_source(source, Action.ALLOW).request(method, path, Asked(host))


@pytest.mark.parametrize(
    "host",
    [
        "one.example.com:443",
        "ONE.example.com.:443",
        "two.example.com:8443",
        "192.0.2.3:443",
        "sick.example.com:443",
        "public.example.com:443",
        "public.example.com:8443",
    ],
)
def test_hosts_of_a_linked_service_are_open_to_whom_its_intentions_allow(gateway: Member, host: str) -> None:
    for method in ("CONNECT", "GET", "POST"):
        assert ask(gateway, f"{method} {host}").allowed
        denied = ask(gateway, f"{method} {host}", "other")
        assert not denied.allowed
        assert denied.because == "no intention has source other or *: the default is deny"


@pytest.mark.parametrize(
    "host",
    [
        "one.example.com:80",
        "one.example.com:8443",
        "two.example.com:443",
        "192.0.2.3:80",
        "192.0.2.4:443",
        "public.example.com:80",
        "example.com:443",
        "evil.one.example.com:443",
        "one.example.com.evil.example:443",
        "127.0.0.1:443",
        "[::1]:443",
        "localhost:443",
        "169.254.169.254:80",
        "127.0.0.1:8500",
        "127.0.0.1:19000",
        "[::ffff:192.0.2.3]:443",
        "user@one.example.com:443",
        "one.example.com:443@evil.example:443",
        "",
        "ext:443",
        "ext.default.dc1.internal." + TRUST_DOMAIN + ":443",
        "egress:443",
    ],
)
def test_every_other_host_and_port_is_closed_to_everybody(gateway: Member, host: str) -> None:
    for method in ("CONNECT", "GET"):
        denied = ask(gateway, f"{method} {host}")
        assert not denied.allowed
        assert "is of no linked service" in denied.because


def test_a_service_of_tcp_is_judged_as_a_connection(gateway: Member) -> None:
    assert ask(gateway, "CONNECT mail.example.com:25").allowed
    assert not ask(gateway, "CONNECT mail.example.com:25", "bad").allowed
    assert not ask(gateway, "GET mail.example.com:25", "bad").allowed


def test_a_tunnel_is_denied_where_an_intention_names_requests(gateway: Member) -> None:
    """What the permissions deny could be asked for inside."""
    denied = ask(gateway, "CONNECT db.example.com:80")
    assert not denied.allowed
    assert "a tunnel hides its requests" in denied.because
    assert ask(gateway, "GET db.example.com /ok/1").allowed
    assert ask(gateway, "GET db.example.com:80 /ok/1").allowed
    assert not ask(gateway, "GET db.example.com /other").allowed


def test_permissions_on_a_service_of_tcp_open_nothing(gateway: Member) -> None:
    gateway.hear(
        IntentionsWatch("mail"),
        [intention("web", "mail", permissions=[{"Action": "allow", "HTTP": {"PathPrefix": "/"}}])],
    )
    for method in ("CONNECT", "GET"):
        assert not ask(gateway, f"{method} mail.example.com:25").allowed


def test_each_host_has_its_own_endpoints(gateway: Member) -> None:
    """Who asks for one of two names is not sent to the other; a tunnel never has TLS of the gateway's."""
    found = {str(host): one for host, (_, one) in egress(gateway).hosts.items()}
    addresses = {name: [one.address for one in host.clear.endpoints] for name, host in found.items()}
    assert addresses == {
        "one.example.com:443": ["one.example.com"],
        "two.example.com:8443": ["Two.Example.com"],
        "192.0.2.3:443": ["192.0.2.3"],
        "sick.example.com:443": [],
        "public.example.com:443": ["one.example.com"],
        "public.example.com:8443": ["Two.Example.com"],
        "mail.example.com:25": ["mail.example.com"],
        "db.example.com:80": ["db.example.com"],
    }
    one = found["one.example.com:443"]
    assert one.clear.origination is not None
    assert one.raw.origination is None
    assert len({host.target for pair in found.values() for host in (pair.clear, pair.raw)}) == 16


def test_subsets_have_no_hosts_and_two_services_of_one_host_are_told(gateway: Member) -> None:
    gateway.hear(OutsideWatch("db"), [outside("db", 25, Address="mail.example.com")])
    table, problems = compile_table(gateway.snapshot)
    assert [str(problem) for problem in problems] == [
        "service mail outside: mail.example.com:25 is of db too; who asks for it is judged as for db"
    ]
    assert table.egress is not None
    assert table.egress.hosts[HostPort("mail.example.com", 25)][0].startswith("db.")


def test_a_gateway_is_no_proxy_unless_its_registration_says_so(authority: Authority) -> None:
    member = link(terminating("egress", authority, [{"Name": "ext"}]), "ext", [443])
    assert (egress(member).proxy_sni, dict(egress(member).hosts)) == ("", {})
    proxy: Any = link(terminating("egress", authority, [{"Name": "ext"}], config=PROXY), "ext", [443])
    assert egress(proxy).proxy_sni == f"egress.default.dc1.internal.{TRUST_DOMAIN}"
    assert list(egress(proxy).hosts) == [HostPort("127.0.0.1", 443)]
