"""The embedded Consul against the real one over HTTP: random stories of registrations, checks, entries and intentions.

Every step is told to both: same status, same text. At the end both are asked for everything that follows from it:
agent, catalog, health, health in the mesh, intentions, what they decide, chains. `N=10000` in the environment asks for
more stories than `make test` tells.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from harness.servers import consul_server, dev_server
from harness.twins import Act, Twins

EXAMPLES = int(os.environ.get("N", "0"))
RUNS = settings(
    max_examples=EXAMPLES or 500,
    phases=[Phase.reuse, Phase.generate],  # stories are short, and each look at a difference takes seconds
    suppress_health_check=list(HealthCheck),
    deadline=None,
)
Object = dict[str, Any]
pytestmark = pytest.mark.timeout(0)  # each request has an end of its own


@pytest.fixture(scope="module")
def twins() -> Iterator[Twins]:
    """Servers of their own: every story begins and ends with empty ones."""
    with consul_server() as real, dev_server() as ours, contextlib.closing(Twins(real, ours)) as both:
        yield both


# --- parts ------------------------------------------------------------------------------------------------------------

SERVICES = ("a", "b", "c")
IDS = ("a", "a1", "b", "c", "gw")
NODES = ("x1", "x2")
NAME = st.sampled_from(SERVICES)
ODD = st.sampled_from([None, True, 5, -1, 1.5, "x", "", [], ["a"], {}, {"a": "b"}, "10s"])


def often(value: Any) -> st.SearchStrategy[Any]:
    """Return a value as a strategy."""
    return value if isinstance(value, st.SearchStrategy) else st.just(value)


@st.composite
def some(draw: st.DrawFn, /, chance: int = 4, **fields: Any) -> Object:
    """Return some of the fields: each in about one of `chance` cases."""
    return {name: draw(often(value)) for name, value in fields.items() if draw(st.integers(1, chance)) == chance}


def joined(*parts: Any) -> st.SearchStrategy[Object]:
    """Return objects made of several."""
    return st.tuples(*map(often, parts)).map(lambda found: {key: one[key] for one in found for key in one})


@st.composite
def bent(draw: st.DrawFn, good: st.SearchStrategy[Object], renamed: dict[str, str] | None = None) -> Object:
    """Return an object, now and then with a value of another type, an unknown key or another spelling."""
    found = dict(draw(good))
    match draw(st.integers(0, 30)):
        case 0 if found:
            found[draw(st.sampled_from(sorted(found)))] = draw(ODD)
        case 1:
            found[draw(st.sampled_from(["Bogus", "check_id", "Namespace", "Partition", "socket_path", "id"]))] = "x"
        case 2 | 3:
            found = {(renamed or {}).get(key, key.lower()): value for key, value in found.items()}
        case _:
            pass
    return found


def mostly(good: list[Any], odd: list[Any]) -> st.SearchStrategy[Any]:
    """Return something good, and something that Consul may refuse in about one of 16 cases."""
    return st.integers(0, 15).flatmap(lambda number: st.sampled_from(good if number else odd))


ADDRESS = mostly(["", "127.0.0.1", "127.0.0.9", "web.example", "2001:db8::1", "a b", "999.1.1.1"], ["0.0.0.0", "::"])
PORT = st.sampled_from([0, 80, 80, 8080, -1, 70000])
META = mostly(
    [{}, {"version": "1"}, {"version": "1"}, {"version": "2", "x-y": ""}],
    [
        {"": "x"},
        {"a b": "x"},
        {"consul-x": "y"},
        {"k": "v" * 513},
        {"k" * 129: "v"},
        {f"k{number}": "v" for number in range(65)},
    ],
)
TAGS = st.sampled_from([[], ["v1"], ["v1", "v2"], ["V1"], [""], ["a b", "a b"]])
WEIGHTS = mostly(
    [{"Passing": 5}, {"Passing": 10, "Warning": 2}, {"Passing": 2, "Warning": 0}, None],
    [
        {},
        {"Passing": 0, "Warning": 1},
        {"Passing": 1, "Warning": -1},
        {"Passing": 70000, "Warning": 1},
        {"Passing": 1, "Warning": 70000},
        {"Warning": 5},
    ],
)
TAGGED = st.sampled_from(
    [
        {},
        {"lan": {"Address": "10.0.0.2", "Port": 81}},
        {"wan": {"Address": "x.example"}, "virtual": {"Port": 1}},
        {"lan_ipv4": {"Address": "10.0.0.3", "Port": 1}},
        {"lan": {"address": "10.0.0.9", "port": 5}},
        {"lan": {}},
    ]
)
STATUS = mostly(["passing", "warning", "critical", ""], ["maintenance", "Passing"])
PROBES = mostly(
    [
        {"TCP": "127.0.0.1:1"},
        {"HTTP": "http://127.0.0.1:1/health"},
        {"GRPC": "127.0.0.1:1"},
        {"UDP": "127.0.0.1:1"},
        {"H2PING": "127.0.0.1:1"},
        {"TCP": "127.0.0.1:1", "HTTP": "http://127.0.0.1:1/"},
        {"HTTP": "nonsense"},
        {"HTTP": "http://127.0.0.1:1/", "Method": "POST", "Header": {"x": ["y", "z"]}, "Body": "b"},
    ],
    [{"DockerContainerID": "x"}, {"TCP": ""}],
)
# Not of a service: when its check is refused so late, Consul has taken over the rest of a registration already.
REFUSED_LATE = st.sampled_from(
    [
        {"ScriptArgs": ["true"], "Interval": "1h"},
        {"args": ["true"], "Interval": "1h"},
        {"OSService": "x", "Interval": "1h"},
    ]
)
LIMITS = some(
    chance=8,
    SuccessBeforePassing=st.sampled_from([1, 3]),
    FailuresBeforeCritical=st.sampled_from([1, 3]),
    FailuresBeforeWarning=mostly([0], [2, 5]),
    DeregisterCriticalServiceAfter=mostly(["10m", "2h", 60], ["x"]),
    OutputMaxSize=mostly([0, 10], [-1]),
    Timeout=mostly(["3s", "0s", "1m30s"], ["x"]),
    TLSSkipVerify=True,
    TLSServerName="x",
)
TTL = joined({"TTL": "10m"}, some(Status=STATUS))
PROBE = joined(PROBES, {"Interval": "1h"})
WRONG_CHECK = st.sampled_from(
    [
        {},
        {"TTL": "0s"},
        {"TTL": "x"},
        {"TTL": "-5s"},
        {"TTL": "10m", "Interval": "1h"},
        {"Interval": "1h"},
        {"TCP": "127.0.0.1:1"},
        {"TCP": "127.0.0.1:1", "Interval": "0s"},
        {"AliasService": "a", "TTL": "10m"},
        {"AliasService": "a", "Interval": "1h"},
        {"AliasService": "a", "TCP": "127.0.0.1:1", "Interval": "1h"},
        {"HTTP": "http://127.0.0.1:1/", "TTL": "10m"},
        {"Status": "passing"},
        {"Bogus": 1, "TTL": "10m"},
    ]
)
# No AliasNode: Consul waits up to a minute for such a check to stop when its service goes.
ALIAS = st.builds(lambda name: {"AliasService": name}, st.sampled_from([*IDS, "gone"]))
RIGHT_CHECK = st.one_of(TTL, TTL, PROBE, ALIAS)


def checks(*ids: str) -> st.SearchStrategy[Object]:
    """Return checks, with one of these IDs when with one at all: of two with the same, Consul keeps either."""
    return bent(
        joined(
            st.integers(0, 15).flatmap(lambda number: RIGHT_CHECK if number else WRONG_CHECK),
            some(chance=3, Name=st.sampled_from(["t", "x y", ""]), CheckID=st.sampled_from(ids)),
            LIMITS,
            some(chance=6, Notes="n"),
        ),
        {"AliasService": "alias_service", "DeregisterCriticalServiceAfter": "deregister_critical_service_after"},
    )


CHECK = checks("t3", "")
# No namespace `default`: which of two upstreams wins that differ in nothing else is random.
UPSTREAM = bent(
    joined(
        {"DestinationName": "b", "LocalBindPort": 9191},
        some(
            DestinationType=mostly(["service", "prepared_query", ""], ["bogus"]),
            DestinationName=mostly(["a", "c", "web*"], ["", "*"]),
            LocalBindPort=mostly([9192, 9193, 70000, -1], [0]),
            LocalBindAddress=st.sampled_from(["127.0.0.1", "0.0.0.0", "::1", ""]),
            LocalBindSocketPath=mostly([""], ["/run/x", "/run/y"]),
            LocalBindSocketMode=st.sampled_from(["", "0644", "x"]),
            Datacenter=st.sampled_from(["", "dc1", "dc2"]),
            DestinationPeer=mostly([""], ["p1"]),
            DestinationNamespace=mostly([""], ["other"]),
            DestinationPartition=mostly([""], ["other"]),
            Config=st.sampled_from([{}, {"protocol": "http"}, {"connect_timeout_ms": 5000, "limits": {"x": [1, {}]}}]),
            MeshGateway=st.sampled_from([{}, {"Mode": "local"}, {"Mode": "bogus"}, {"Mode": "none"}]),
        ),
    ),
    {"DestinationName": "destination_name", "LocalBindPort": "local_bind_port"},
)
PATH = joined(
    {"ListenerPort": 21500, "Path": "/health", "LocalPathPort": 8080},
    some(Protocol=st.sampled_from(["http", "http2", "x"]), ListenerPort=mostly([21501], [0, 70000]), Path=""),
)
PROXY_FIELDS = some(
    LocalServiceAddress=st.sampled_from(["127.0.0.1", "10.0.0.9", ""]),
    LocalServicePort=st.sampled_from([0, 8080]),
    LocalServiceSocketPath=st.sampled_from(["", "/run/s"]),
    DestinationServiceID=st.sampled_from(["a1", "gone", ""]),
    Mode=st.sampled_from(["", "direct", "transparent", "bogus"]),
    Config=st.sampled_from([{}, {"protocol": "http"}, {"bind_address": "0.0.0.0", "x": None, "y": 1.5}]),
    Upstreams=st.lists(UPSTREAM, max_size=3),
    MeshGateway=st.sampled_from([{}, {"Mode": "local"}, {"Mode": "bogus"}]),
    Expose=st.builds(lambda paths, checks: paths | checks, some(Paths=st.lists(PATH, max_size=2)), some(Checks=True)),
    TransparentProxy=st.sampled_from([{}, {"OutboundListenerPort": 15001}, {"DialedDirectly": True}]),
)
PROXY = bent(
    joined(
        {"DestinationServiceName": "a"}, PROXY_FIELDS, some(9, DestinationServiceName=mostly(["b", "c"], [" ", "*"]))
    ),
    {"DestinationServiceName": "destination_service_name", "LocalServicePort": "local_service_port"},
)
COMMON = some(
    Port=PORT,
    Address=ADDRESS,
    Tags=TAGS,
    Meta=META,
    Weights=WEIGHTS,
    TaggedAddresses=TAGGED,
    EnableTagOverride=st.booleans(),
    SocketPath=st.sampled_from(["", "/run/a"]),
    Locality=mostly([{}, {"Region": "r", "Zone": "z"}, None], [{"Zone": "z"}]),
)
CHECKS = some(Check=CHECK, Checks=st.lists(checks(""), max_size=3))
SIDECAR = bent(
    joined(
        COMMON,
        CHECKS,
        some(
            chance=12,
            ID="x",
            Name=st.just("side"),
            Kind=st.sampled_from(["connect-proxy", "mesh-gateway", "bogus"]),
            Connect=st.sampled_from([{}, {"Native": True}, {"SidecarService": {}}]),
        ),
        st.builds(lambda proxy: proxy and {"Proxy": proxy}, st.one_of(st.just({}), PROXY_FIELDS)),
    ),
    {"TaggedAddresses": "tagged_addresses", "EnableTagOverride": "enable_tag_override"},
)
CONNECT = st.one_of(
    st.builds(lambda sidecar: {"SidecarService": sidecar}, st.one_of(st.just({}), SIDECAR, SIDECAR)),
    st.builds(lambda sidecar: {"sidecar_service": sidecar}, st.just({})),
    st.sampled_from([{"Native": True}, {}, {"Bogus": 1}, {"SidecarService": None}, {"Native": True, "Proxy": {}}]),
)
TYPICAL = joined(
    {"Port": 8080},
    st.builds(lambda name, at: {"Name": name} | at, NAME, some(ID=st.sampled_from(IDS))),
    COMMON,
    CHECKS,
    some(2, Connect=CONNECT),
    some(40, Name=st.sampled_from(["", "x y", "*"]), Token="x"),
)
EXPLICIT = joined(
    {"Kind": "connect-proxy", "Name": "a-proxy", "Port": 20000},
    st.builds(lambda proxy: {"Proxy": proxy}, PROXY),
    COMMON,
    CHECKS,
    some(9, Connect=CONNECT, ID="gw"),
)
GATEWAY = joined(
    st.builds(
        lambda kind, name: {"Kind": kind, "Name": name, "Port": 8443},
        st.sampled_from(
            ["mesh-gateway", "terminating-gateway", "terminating-gateway", "ingress-gateway", "api-gateway", "bogus"]
        ),
        st.sampled_from(["tg", "ig", "gw"]),
    ),
    COMMON,
    CHECKS,
    some(12, Proxy=PROXY, Connect=CONNECT),
)
DEFINITION = bent(
    st.one_of(TYPICAL, TYPICAL, TYPICAL, EXPLICIT, GATEWAY),
    {"EnableTagOverride": "enable_tag_override", "TaggedAddresses": "tagged_addresses", "Name": "Name"},
)

# --- what is done -----------------------------------------------------------------------------------------------------


def put(path: str, body: Any = None) -> Act:
    """Return a write."""
    return Act("PUT", path, body)


CHECK_IDS = st.sampled_from(
    ["service:a", "service:a:1", "service:a:2", "service:a1", "service:b", "t1", "t2", "alone", "t", "gone"]
)
REGISTER = st.builds(
    lambda body, how: put("agent/service/register" + how, body),
    DEFINITION,
    st.sampled_from(["", "", "", "?replace-existing-checks", "?replace-existing-checks=true"]),
)
ALONE = bent(
    joined(
        st.one_of(TTL, TTL, TTL, PROBE, ALIAS, WRONG_CHECK, REFUSED_LATE),
        LIMITS,
        some(2, Name=st.sampled_from(["alone", "t"])),
        some(3, ID=st.sampled_from(["alone", "t1", ""]), CheckID=st.sampled_from(["t2", ""]), Notes="n"),
        some(2, ServiceID=st.sampled_from([*IDS, "gone", ""])),
    ),
    {"ServiceID": "service_id"},
)
UPDATES = st.builds(
    lambda name, body: put(f"agent/check/update/{name}", body),
    CHECK_IDS,
    st.sampled_from([{"Status": "passing", "Output": "fine"}, {"Status": "warning"}, {"Status": "bogus"}, {}, "x", ""])
    | st.just({"Status": "critical", "Output": "<&>"}),
)
AGENT = st.one_of(
    *([REGISTER] * 6),
    st.builds(lambda body: put("agent/check/register", body), ALONE),
    st.builds(
        lambda word, name, note: put(f"agent/check/{word}/{name}{note}"),
        st.sampled_from(["pass", "pass", "warn", "fail"]),
        CHECK_IDS,
        st.sampled_from(["", "?note=well"]),
    ),
    UPDATES,
    st.builds(lambda name: put(f"agent/service/deregister/{name}"), st.sampled_from([*IDS, "a-sidecar-proxy", "no"])),
    st.builds(lambda name: put(f"agent/check/deregister/{name}"), CHECK_IDS),
    st.builds(
        lambda name, how: put(f"agent/service/maintenance/{name}{how}"),
        st.sampled_from([*IDS, "gone"]),
        st.sampled_from(["?enable=true", "?enable=true&reason=work", "?enable=false", "", "?enable=x"]),
    ),
    st.builds(
        lambda how: put(f"agent/maintenance{how}"),
        st.sampled_from(["?enable=true&reason=x", "?enable=false", "?enable=true", "?enable="]),
    ),
)
OUTSIDE = bent(
    joined(
        st.one_of(
            st.builds(lambda name: {"Service": name, "Port": 80}, NAME),
            st.builds(lambda name: {"Service": name, "Port": 80}, NAME),
            st.builds(lambda proxy: {"Kind": "connect-proxy", "Service": "p", "Port": 80, "Proxy": proxy}, PROXY),
            st.just({"Kind": "terminating-gateway", "Service": "tg", "Port": 80}),
        ),
        COMMON,
        some(3, ID=st.sampled_from(["a", "a1", "x"])),
        some(9, Connect=st.sampled_from([{}, {"Native": True}])),
        some(16, Service=""),
    )
)
CATALOG_CHECK = bent(
    joined(
        some(2, CheckID=st.sampled_from(["k1", "k2"]), Name=st.sampled_from(["k1", "named"])),
        some(2, Status=st.sampled_from(["passing", "warning", "critical", "bogus"]), Output="seen", Notes="n"),
        some(3, ServiceID=st.sampled_from(["a", "a1", "gone"]), Node=st.sampled_from(["x1", "x2"])),
        some(6, Type="http", Definition=st.sampled_from([{}, {"TCP": "x:1", "Interval": "10s"}]), ServiceName="zz"),
    )
)
CATALOG = st.one_of(
    st.builds(
        lambda body: put("catalog/register", body),
        bent(
            joined(
                st.builds(lambda node: {"Node": node, "Address": "10.1.1.1"}, st.sampled_from(NODES)),
                some(2, Service=OUTSIDE),
                some(3, Check=CATALOG_CHECK, Checks=st.lists(CATALOG_CHECK, max_size=2)),
                some(6, NodeMeta=META, TaggedAddresses=st.sampled_from([{"lan": "10.1.1.2"}, {}]), SkipNodeUpdate=True),
                some(12, Address=st.sampled_from(["", "web.example"]), Node="", Datacenter="dc1", ID="x"),
            )
        ),
    ),
    st.builds(
        lambda body: put("catalog/deregister", body),
        bent(
            joined(
                st.builds(lambda node: {"Node": node}, st.sampled_from([*NODES, "none"])),
                some(3, ServiceID=st.sampled_from(["a", "a1", "x"]), CheckID=st.sampled_from(["k1", "k2"])),
                some(12, Node="", Datacenter="dc1"),
            )
        ),
    ),
)
ENTRY = st.one_of(
    st.builds(
        lambda name, body: {"Kind": "service-defaults", "Name": name} | body,
        NAME,
        some(2, Protocol=st.sampled_from(["http", "tcp", "grpc"]), Meta=st.just({"k": "v"})),
    ),
    st.builds(
        lambda services, protocol: {
            "Kind": "ingress-gateway",
            "Name": "ig",
            "Listeners": [{"Port": 80, "Protocol": protocol, "Services": [{"Name": name} for name in services]}],
        },
        st.lists(st.sampled_from([*SERVICES, "*"]), min_size=1, max_size=2, unique=True),
        st.sampled_from(["http", "tcp"]),
    ),
    st.builds(
        lambda services, extra: {
            "Kind": "terminating-gateway",
            "Name": "tg",
            "Services": [{"Name": name, **extra} for name in services],
        },
        # Not a name beside the wildcard: Consul's next look at the service overwrites its row with the wildcard's.
        st.one_of(st.lists(NAME, max_size=2, unique=True), st.just(["*"])),
        some(SNI="x.example", CAFile="/ca.pem", DisableAutoHostRewrite=True),
    ),
    st.builds(
        lambda name, body: {"Kind": "service-resolver", "Name": name} | body,
        NAME,
        some(2, Subsets=st.just({"v1": {"Filter": "Service.Meta.version == 1"}}), DefaultSubset=st.just("v1")),
    ),
    st.just({"Kind": "proxy-defaults", "Config": {"protocol": "http"}}),
)
ENTRIES = st.one_of(
    st.builds(lambda entry: put("config", entry), ENTRY),
    st.builds(lambda entry: put("config", entry), ENTRY),
    st.builds(
        lambda kind, name: Act("DELETE", f"config/{kind}/{name}"),
        st.sampled_from(["service-defaults", "ingress-gateway", "terminating-gateway", "service-resolver"]),
        st.sampled_from([*SERVICES, "ig", "tg"]),
    ),
)

# --- intentions -------------------------------------------------------------------------------------------------------

SIDE = st.sampled_from([*SERVICES, "*", "a", "A", "x.y"])
ACTION = st.sampled_from(["allow", "deny", "allow", "deny", "", "bogus", "ALLOW"])
PERMISSION = st.builds(
    lambda action, http: {"Action": action, "HTTP": http},
    st.sampled_from(["allow", "deny", "bogus"]),
    st.sampled_from(
        [
            {"PathPrefix": "/"},
            {"PathExact": "/x", "Methods": ["get", "PUT"]},
            {},
            {"PathRegex": "/a("},
            {"Header": [{"Name": "x", "Exact": "1", "Invert": True}]},
            {"path_prefix": "/y"},
            {"PathPrefix": "y"},
            {"Header": [{"Name": "x", "Present": True, "Exact": "1"}]},
            {"Methods": ["GET", "GET"]},
        ]
    ),
)
RULE = joined(
    st.builds(lambda action: {"Action": action}, ACTION),
    some(4, Description=st.sampled_from(["d", "", "x" * 513])),
    some(6, Permissions=st.lists(PERMISSION, max_size=2), Meta=META),
    some(9, Precedence=3, JWT=st.sampled_from([{}, {"Providers": [{"Name": "okta"}]}])),
)
SOURCE = bent(
    joined(
        st.builds(lambda name: {"Name": name}, SIDE),
        RULE,
        some(9, Type=st.sampled_from(["consul", "bogus"]), Peer="p1", Namespace="default", LegacyID="x"),
    )
)
RULE_ENTRY = st.builds(
    lambda name, sources, extra: {"Kind": "service-intentions", "Name": name, "Sources": sources} | extra,
    SIDE,
    st.lists(SOURCE, max_size=3),
    some(5, Meta=st.just({"k": "v"}), JWT=st.sampled_from([{"Providers": [{"Name": "okta"}]}])),
)
LEGACY = bent(
    joined(
        st.builds(lambda source, target: {"SourceName": source, "DestinationName": target}, SIDE, SIDE),
        RULE,
        some(4, SourceType=st.sampled_from(["consul", "bogus", ""])),
        some(12, SourceNS=st.sampled_from(["default", "other", "*"]), DestinationNS="default", ID="x", SourcePeer="p1"),
        some(12, SourceName=st.sampled_from(["", "a*"]), DestinationName=st.sampled_from(["", "b*"]), DefaultPort=5),
    )
)
PARAMETER = st.one_of(SIDE, SIDE, SIDE, st.sampled_from(["default/a", "other/a", "a/b/c/d", "peer:p1/a", "", "a*"]))
PAIR = st.builds(lambda source, target: urlencode({"source": source, "destination": target}), PARAMETER, PARAMETER)
EXACT = st.one_of(
    st.builds(lambda pair, body: put(f"connect/intentions/exact?{pair}", body), PAIR, bent(RULE)),
    st.builds(lambda pair, body: put(f"connect/intentions/exact?{pair}", body), PAIR, LEGACY),
    st.builds(lambda pair: Act("DELETE", f"connect/intentions/exact?{pair}"), PAIR),
    st.builds(
        lambda how: Act(how, "connect/intentions/exact?source=a&source=b", {}), st.sampled_from(["PUT", "DELETE"])
    ),
)
IDENTIFIER = st.sampled_from(["{id0}", "{id0}", "{id1}", "{id2}", "{id9}", "x", "00000000-1111-2222-3333-44444444444"])
LEGACY_ACTS = st.one_of(
    st.builds(lambda body: Act("POST", "connect/intentions", body), LEGACY),
    st.builds(lambda body: Act("POST", "connect/intentions", body), LEGACY),
    st.builds(lambda name, body: put(f"connect/intentions/{name}", body), IDENTIFIER, LEGACY),
    st.builds(lambda name: Act("DELETE", f"connect/intentions/{name}"), IDENTIFIER),
    st.builds(lambda name: Act("GET", f"connect/intentions/{name}"), IDENTIFIER),
)
INTENTIONS = st.one_of(
    st.builds(lambda entry: put("config", entry), RULE_ENTRY),
    EXACT,
    LEGACY_ACTS,
    st.builds(lambda name: Act("DELETE", f"config/service-intentions/{name}"), SIDE),
    st.builds(
        lambda name, protocol: put("config", {"Kind": "service-defaults", "Name": name, "Protocol": protocol}),
        NAME,
        st.sampled_from(["http", "http", "tcp"]),
    ),
)

# --- what is asked ----------------------------------------------------------------------------------------------------

KNOWN: Object = {
    "Name": "a",
    "Port": 8080,
    "Tags": ["v1"],
    "Checks": [{"CheckID": "t1", "TTL": "10m"}, {"CheckID": "t2", "TTL": "10m", "Status": "passing"}],
    "Connect": {"SidecarService": {}},
}
BEGINNINGS = st.lists(st.one_of(REGISTER, REGISTER, CATALOG), min_size=1, max_size=3)
REGISTRATIONS = st.builds(
    lambda known, beginning, story: known + beginning + story,
    st.sampled_from([[], [put("agent/service/register", KNOWN)], [put("agent/service/register", KNOWN)]]),
    BEGINNINGS,
    st.lists(st.one_of(AGENT, AGENT, AGENT, CATALOG, ENTRIES), max_size=5),
)
FILTERS = (
    "Service.Meta.version == 1", "Checks.Status == passing", "v1 in Service.Tags", "Service.Port == 8080",
    "Service.Meta is empty", "Service.ID matches `^a`", "Service.Weights.Passing == 1", "Nope == 1", "(",
    "Service.TaggedAddresses.lan.Port == 81", 'Service.Kind != ""', "Node.Node == x1", "Service.Connect.Native == true",
    "Service.Proxy.DestinationServiceName == a", "Service.EnableTagOverride == true", "Service.Port == x",
)  # fmt: skip
ROWS = ("catalog/service", "catalog/connect", "health/service", "health/connect", "health/ingress", "health/checks")


def ask_of_registrations(twins: Twins, condition: str) -> None:
    """Compare what follows from registrations."""
    for path in ("agent/services", "agent/checks", "catalog/services", "catalog/nodes", "health/state/any"):
        twins.compare(path)
    twins.settle()
    for node in NODES:
        twins.compare(f"catalog/node/{node}")
    query = urlencode({"filter": condition})
    for name in (*SERVICES, "ig", "tg", "a-sidecar-proxy"):
        for path in ROWS:
            twins.compare(f"{path}/{name}")
        twins.compare(f"health/service/{name}?passing")
        twins.compare(f"health/connect/{name}?{query}")
        twins.compare(f"health/service/{name}?tag=v1&{query}")
        twins.compare(f"agent/health/service/name/{name}")
    for name in (*IDS, "a-sidecar-proxy"):
        twins.compare(f"agent/service/{name}")
        twins.compare(f"agent/health/service/id/{name}")


def ask_of_entries(twins: Twins) -> None:
    """Compare entries and what follows from them."""
    for kind in ("service-defaults", "service-resolver", "ingress-gateway", "terminating-gateway", "proxy-defaults"):
        twins.compare(f"config/{kind}")
    for gateway in ("ig", "tg"):
        twins.compare(f"catalog/gateway-services/{gateway}")
    for name in SERVICES:
        twins.compare(f"discovery-chain/{name}")


def ask_of_intentions(twins: Twins) -> None:
    """Compare rules and what they decide of every pair."""
    twins.compare("connect/intentions")
    twins.compare("config/service-intentions")
    for name in (*SERVICES, "*", "A"):
        for side in ("source", "destination"):
            twins.compare(f"connect/intentions/match?by={side}&name={quote(name)}")
    for source in (*SERVICES, "A", "*"):
        for target in (*SERVICES, "B", "*"):
            pair = urlencode({"source": source, "destination": target})
            twins.compare(f"connect/intentions/check?{pair}")
            twins.compare(f"connect/intentions/exact?{pair}")
    for source in SERVICES:
        for target in (*SERVICES, "B"):
            uri = f"spiffe://x.consul/ns/default/dc/dc1/svc/{source}"
            body = {"Target": target, "ClientCertURI": uri, "ClientCertSerial": "08"}
            twins.compare("", Act("POST", "agent/connect/authorize", body))


def tell(twins: Twins, story: list[Act]) -> None:
    """Tell a story to both, from the beginning."""
    twins.reset()
    for act in story:
        if twins.tell(act) == 200 and act.path.startswith("agent/"):
            twins.settle()


@given(REGISTRATIONS, st.sampled_from(FILTERS))
@RUNS
def test_after_any_registrations_health_is_consuls(twins: Twins, story: list[Act], condition: str) -> None:
    with contextlib.closing(twins):
        tell(twins, story)
        ask_of_registrations(twins, condition)
        ask_of_entries(twins)


@given(st.lists(INTENTIONS, min_size=1, max_size=8))
@RUNS
def test_after_any_intentions_every_answer_is_consuls(twins: Twins, story: list[Act]) -> None:
    with contextlib.closing(twins):
        tell(twins, story)
        ask_of_intentions(twins)
