"""Config entries: what is refused in which words, what is read back. Texts are those of a Consul 1.21.0."""

from __future__ import annotations

from typing import Any

import pytest

from policies.entries import KINDS, DecodeError, Entries, decode_entry, entry_name, normalise_entry
from policies.entries.filter_syntax import syntax_error
from policies.entries.strangers import strangers
from policies.errors import EntryError

ROUTE = {"Match": {"HTTP": {"PathPrefix": "/x"}}}
ALLOW = {"Name": "web", "Action": "allow"}


def router(*routes: dict[str, Any]) -> dict[str, Any]:
    return {"Kind": "service-router", "Name": "a", "Routes": list(routes)}


def http(**match: Any) -> dict[str, Any]:
    return router({"Match": {"HTTP": match}})


def splitter(*splits: dict[str, Any]) -> dict[str, Any]:
    return {"Kind": "service-splitter", "Name": "a", "Splits": list(splits)}


def resolver(**fields: Any) -> dict[str, Any]:
    return {"Kind": "service-resolver", "Name": "a", **fields}


def failover(**fields: Any) -> dict[str, Any]:
    return resolver(Subsets={"v1": {}}, Failover={"*": fields})


def balancer(**fields: Any) -> dict[str, Any]:
    return resolver(LoadBalancer=fields)


def hashed(**fields: Any) -> dict[str, Any]:
    return balancer(Policy="maglev", HashPolicies=[fields])


def intentions(*sources: dict[str, Any], name: str = "a", **fields: Any) -> dict[str, Any]:
    return {"Kind": "service-intentions", "Name": name, "Sources": list(sources), **fields}


def permission(**fields: Any) -> dict[str, Any]:
    return intentions({"Name": "web", "Permissions": [{"Action": "allow", **fields}]})


def defaults(**fields: Any) -> dict[str, Any]:
    return {"Kind": "service-defaults", "Name": "a", **fields}


def ingress(*services: dict[str, Any], protocol: str = "http", **fields: Any) -> dict[str, Any]:
    listener = {"Port": 8080, "Protocol": protocol, "Services": list(services)}
    return {"Kind": "ingress-gateway", "Name": "ig", "Listeners": [listener], **fields}


def one(text: str) -> str:
    return f"1 error occurred:\n\t* {text}\n\n"


REFUSED_WHEN_DECODED = [
    ([], "'' expected a map, got 'slice'"),
    (5, "'' expected a map, got 'float64'"),
    (None, "Payload does not contain a kind/Kind key at the top level"),
    ({"KIND": "mesh"}, "Payload does not contain a kind/Kind key at the top level"),
    ({"Kind": 5}, "Kind value in payload is not a string"),
    ({"Kind": "bogus"}, "invalid config entry kind: bogus"),
    ({"Kind": "control-plane-request-limit"}, "invalid config entry kind: control-plane-request-limit"),
    (defaults(Protocl="http"), one('invalid config key "Protocl"')),
    (defaults(Namespace="x"), one('invalid config key "Namespace", namespaces are a consul enterprise feature')),
    (defaults(Partition="x"), one('invalid config key "Partition"')),
    (
        {"Kind": "api-gateway", "Listeners": [{"Override": {"JWT": {"Providers": []}}}]},
        one(
            'invalid config key "Listeners[0].Override.JWT.Providers", '
            "api-gateway jwt validation is a consul enterprise feature"
        ),
    ),
    (
        defaults(A=1, B=2),
        '2 errors occurred:\n\t* invalid config key "A"\n\t* invalid config key "B"\n\n',
    ),
    (http(PathExact="/x", path_exact="/y"), one('invalid config key "Routes[0].Match.HTTP.pathexact"')),
    ({"Kind": "mesh", "Name": "mesh"}, one('invalid config key "Name"')),
    (http(Header=[{"Contains": "x"}]), one('invalid config key "Routes[0].Match.HTTP.Header[0].Contains"')),
    (
        defaults(Name=[1, 2]),
        (
            "1 error(s) decoding:\n\n* 'Name' expected type 'string', got unconvertible type '[]interface {}', "
            "value: '[1 2]'"
        ),
    ),
    (
        defaults(Mode={"a": None}),
        (
            "1 error(s) decoding:\n\n* 'Mode' expected type 'structs.ProxyMode', "
            "got unconvertible type 'map[string]interface {}', value: 'map[a:<nil>]'"
        ),
    ),
    (
        defaults(MaxInboundConnections="many", Expose=True),
        (
            "2 error(s) decoding:\n\n* 'Expose' expected a map, got 'bool'\n"
            "* cannot parse 'MaxInboundConnections' as int: strconv.ParseInt: parsing \"many\": invalid syntax"
        ),
    ),
    (
        http(CaseInsensitive="maybe"),
        (
            "1 error(s) decoding:\n\n* cannot parse 'Routes[0].Match.HTTP.CaseInsensitive' as bool: "
            'strconv.ParseBool: parsing "maybe": invalid syntax'
        ),
    ),
    (
        splitter({"Weight": "half"}),
        (
            "1 error(s) decoding:\n\n* cannot parse 'Splits[0].Weight' as float: "
            'strconv.ParseFloat: parsing "half": invalid syntax'
        ),
    ),
    (
        balancer(RingHashConfig={"MinimumRingSize": "-1"}),
        (
            "1 error(s) decoding:\n\n* cannot parse 'LoadBalancer.RingHashConfig.MinimumRingSize' as uint: "
            'strconv.ParseUint: parsing "-1": invalid syntax'
        ),
    ),
    (
        intentions({"LegacyCreateTime": 5}),
        "1 error(s) decoding:\n\n* 'Sources[0].LegacyCreateTime' expected a map, got 'float64'",
    ),
]


@pytest.mark.parametrize(("raw", "text"), REFUSED_WHEN_DECODED)
def test_what_cannot_be_decoded_is_refused_in_consuls_words(raw: object, text: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode_entry(raw)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("span", "text"),
    [
        ("5", 'time: missing unit in duration "5"'),
        ("", 'time: invalid duration ""'),
        ("5x", 'time: unknown unit "x" in duration "5x"'),
        ("s", 'time: invalid duration "s"'),
        ("99999999999999999999s", 'time: invalid duration "99999999999999999999s"'),
        ("3000000h", 'time: invalid duration "3000000h"'),
    ],
)
def test_a_bad_duration_is_refused_in_gos_words(span: str, text: str) -> None:
    with pytest.raises(DecodeError, match="1 error") as caught:
        decode_entry(resolver(ConnectTimeout=span))
    assert str(caught.value) == f"1 error(s) decoding:\n\n* error decoding 'ConnectTimeout': {text}"


REFUSED = [
    # router
    ({"Kind": "service-router"}, "Name is required"),
    (http(PathExact="x"), "Route[0] PathExact doesn't start with '/': \"x\""),
    (http(PathPrefix="x"), "Route[0] PathPrefix doesn't start with '/': \"x\""),
    (
        http(PathExact="/x", PathRegex="x"),
        "Route[0] should only contain at most one of PathExact, PathPrefix, or PathRegex",
    ),
    (http(Header=[{}]), "Route[0] Header[0] missing required Name field"),
    (
        http(Header=[{"Name": "x"}]),
        "Route[0] Header[0] should only contain one of Present, Exact, Prefix, Suffix, or Regex",
    ),
    (http(QueryParam=[{}]), "Route[0] QueryParam[0] missing required Name field"),
    (
        http(QueryParam=[{"Name": "x", "Exact": "1", "Present": True}]),
        "Route[0] QueryParam[0] should only contain one of Present, Exact, or Regex",
    ),
    (http(Methods=["get", "GET"]), 'Route[0] Methods contains "GET" more than once'),
    (http(Methods=["fetch"]), 'Route[0] Methods contains an invalid method "FETCH"'),
    (
        router({"Destination": {"PrefixRewrite": "/"}}),
        "Route[0] cannot make use of PrefixRewrite without configuring either PathExact or PathPrefix",
    ),
    (
        router(ROUTE, {**ROUTE, "Destination": {"RetryOn": ["RESET"]}}),
        'Route[1] contains an invalid retry condition: "RESET"',
    ),
    # splitter
    (splitter(), "no splits configured"),
    (splitter({"Weight": 99}), "the sum of all split weights must be 100, not 99.000000"),
    (
        splitter({"Weight": 33.335}, {"Weight": 66.665, "Service": "b"}),
        "the sum of all split weights must be 100, not 100.010002",
    ),
    (
        splitter({"Weight": 50}, {"Weight": 50, "Service": "a"}),
        'split destination occurs more than once: service="a", subset="", namespace="", partition=""',
    ),
    # resolver
    (resolver(Subsets={"": {}}), "Subset defined with empty name"),
    (
        resolver(Subsets={"V": {}}),
        (
            'Subset "V" is invalid: must be 63 characters or fewer, begin or end with lower case alphanumeric '
            "characters, and contain lower case alphanumeric characters or '-' in between"
        ),
    ),
    (
        resolver(Subsets={"v" * 64: {}}),
        f'Subset "{"v" * 64}" is invalid: must be non-empty and 63 characters or fewer',
    ),
    (
        resolver(Subsets={"v1": {"Filter": "grpc"}}),
        (
            'Filter for subset "v1" is not a valid expression: 1:5 (4): no match found, '
            'expected: "!=", ".", "==", "[", [ \\t\\r\\n] or [a-zA-Z0-9_]'
        ),
    ),
    (resolver(DefaultSubset="v1"), 'DefaultSubset "v1" is not a valid subset'),
    (resolver(PrioritizeByLocality={"Mode": "failover"}), "Prioritize-by-locality requires Consul Enterprise "),
    (resolver(Redirect={}), "Redirect is empty"),
    (resolver(Redirect={"Partition": "default"}), "Redirect: Setting Partition requires Consul Enterprise"),
    (resolver(Redirect={"Service": "b", "Namespace": "x"}), "Redirect: Setting Namespace requires Consul Enterprise"),
    (
        resolver(Redirect={"Service": "b"}, Failover={"*": {"Service": "c"}}),
        "Redirect and Failover cannot both be set",
    ),
    (
        resolver(Redirect={"Service": "b", "Peer": "p", "Datacenter": "dc2"}),
        "Redirect.Peer cannot be set with Redirect.Datacenter",
    ),
    (resolver(Redirect={"Peer": "p"}), "Redirect.Peer defined without Redirect.Service"),
    (resolver(Redirect={"ServiceSubset": "v1"}), "Redirect.ServiceSubset defined without Redirect.Service"),
    (
        resolver(Redirect={"Service": "a", "ServiceSubset": "v1"}),
        'Redirect.ServiceSubset "v1" is not a valid subset of "a"',
    ),
    (resolver(Failover={"v1": {"Service": "b"}}), 'Bad Failover["v1"]: not a valid subset subset'),
    (
        failover(),
        (
            'Bad Failover["*"]: one of Service, ServiceSubset, Namespace, Targets, SamenessGroup, or Datacenters '
            "is required"
        ),
    ),
    (
        failover(Service="b", Policy={"Mode": "sequential"}),
        'Bad Failover["*"]: Setting failover policies requires Consul Enterprise',
    ),
    (failover(ServiceSubset="v9"), 'Bad Failover["*"]: ServiceSubset "v9" is not a valid subset of ""'),
    (
        failover(Service="b", Targets=[{"Service": "c"}]),
        'Bad Failover["*"]: Targets cannot be set with Service',
    ),
    (
        failover(Targets=[{"Peer": "p", "Datacenter": "dc2"}]),
        'Bad Failover["*"].Targets[0]: Peer cannot be set with Datacenter',
    ),
    (
        failover(Targets=[{"Partition": "x"}]),
        'Bad Failover["*"].Targets[0]: Setting Partition requires Consul Enterprise',
    ),
    (
        failover(Targets=[{"ServiceSubset": "v9"}]),
        'Bad Failover["*"].Targets[0]: ServiceSubset "v9" is not a valid subset of "a"',
    ),
    (failover(Datacenters=["dc2", ""]), 'Bad Failover["*"].Datacenters: found empty datacenter'),
    (resolver(ConnectTimeout="-1500ms"), "Bad ConnectTimeout '-1.5s', must be >= 0"),
    (resolver(RequestTimeout=-1), "Bad RequestTimeout '-1ns', must be >= 0"),
    (balancer(Policy="fair"), 'Bad LoadBalancer policy: "fair" is not supported'),
    (
        balancer(Policy="random", RingHashConfig={}),
        'Bad LoadBalancer configuration. RingHashConfig specified for incompatible load balancing policy "random"',
    ),
    (
        balancer(HashPolicies=[{"SourceIP": True}]),
        'Bad LoadBalancer configuration: HashPolicies specified for non-hash-based Policy: ""',
    ),
    (hashed(Field="body"), 'Bad LoadBalancer HashPolicy[0]: "body" is not a supported field'),
    (
        hashed(Field="header", FieldValue="x", SourceIP=True),
        'Bad LoadBalancer HashPolicy[0]: A single hash policy cannot hash both a source address and a "header"',
    ),
    (hashed(Field="header"), 'Bad LoadBalancer HashPolicy[0]: Field "header" was specified without a FieldValue'),
    (
        hashed(Field="header", FieldValue="x", CookieConfig={}),
        'Bad LoadBalancer HashPolicy[0]: cookie_config provided for "header"',
    ),
    (
        hashed(Field="cookie", FieldValue="x", CookieConfig={"Session": True, "TTL": "1s"}),
        "Bad LoadBalancer HashPolicy[0]: a session cookie cannot have an associated TTL",
    ),
    # intentions
    (intentions(), "At least one source is required"),
    (intentions(ALLOW, name="web*"), "Name: wildcard character '*' cannot be used with partial values"),
    (intentions({"Action": "allow"}), "Sources[0].Name is required"),
    (intentions({"Name": "web"}), "Sources[0].Action must be set to 'allow' or 'deny'"),
    (
        intentions({"Name": "w*", "Action": "allow"}),
        "Sources[0].Name: wildcard character '*' cannot be used with partial values",
    ),
    (intentions({**ALLOW, "Peer": "*"}), "Sources[0].Peer: cannot use wildcard '*' in peer"),
    (intentions(ALLOW, ALLOW), 'Sources[1] defines "web" more than once'),
    (intentions({**ALLOW, "Peer": "p"}, {**ALLOW, "Peer": "p"}), 'Sources[1] defines peer("p") "web" more than once'),
    (intentions({**ALLOW, "LegacyMeta": {"a": "b"}}), "Sources[0].LegacyMeta must be omitted"),
    (intentions({**ALLOW, "Type": "vm"}), "Sources[0].Type must be set to 'consul'"),
    (intentions({**ALLOW, "Description": "d" * 513}), "Sources[0].Description exceeds maximum length 512"),
    (
        intentions({**ALLOW, "SamenessGroup": "g"}),
        "Sources[0].SamenessGroup: Sameness groups are a Consul Enterprise feature. ",
    ),
    (intentions(ALLOW, JWT={"Providers": [{}]}), one("JWT provider name is required")),
    (
        intentions({**ALLOW, "Permissions": [{"Action": "allow"}]}),
        "Sources[0].Action must be omitted if Permissions are specified",
    ),
    (
        intentions({"Name": "web", "Permissions": [{}]}, name="*"),
        "Sources[0].Permissions cannot be specified on intentions with wildcarded destinations",
    ),
    (permission(), "Sources[0].Permissions[0].HTTP is required"),
    (permission(HTTP={}), "Sources[0].Permissions[0].HTTP should not be empty"),
    (permission(HTTP={"PathExact": "x"}), "Sources[0].Permissions[0].HTTP.PathExact doesn't start with '/': \"x\""),
    (
        permission(HTTP={"Header": [{"Name": "x", "Present": True, "IgnoreCase": True}]}),
        (
            "Sources[0].Permissions[0].HTTP.Header[0] should set one of Exact, Prefix, Suffix, or Contains "
            "when using IgnoreCase"
        ),
    ),
    (
        permission(HTTP={"Header": [{"Name": "x"}]}),
        (
            "Sources[0].Permissions[0].HTTP.Header[0] should only contain one of Present, Exact, Prefix, Suffix, "
            "Contains, or Regex"
        ),
    ),
    # defaults and mesh
    (defaults(Name="*"), "service-defaults name must be the name of a service, and not a wildcard"),
    (defaults(Protocol="bogus"), one("invalid value for protocol: bogus")),
    (defaults(Meta={"k" * 129: "v"}), one(f'Meta key "{"k" * 129}" exceeds maximum length 128')),
    (
        defaults(MutualTLSMode="lax"),
        'Invalid MutualTLSMode "lax". Must be one of "", "strict", or "permissive".',
    ),
    (
        defaults(RateLimits={}),
        one("invalid rate_limits config. Rate limiting is a consul enterprise feature"),
    ),
    (
        defaults(UpstreamConfig={}, Destination={}),
        one("UpstreamConfig and Destination are mutually exclusive for service defaults"),
    ),
    (
        defaults(Destination={"Addresses": ["*.example.com"]}),
        (
            "2 errors occurred:\n\t* Destination address '*.example.com' is invalid "
            "Could not validate address *.example.com as an IP or Hostname\n\t* Invalid Port number 0\n\n"
        ),
    ),
    (
        defaults(UpstreamConfig={"Defaults": {"Limits": {"MaxConnections": -1}}}),
        one("error in upstream defaults: " + one("max connections cannot be negative")),
    ),
    (
        defaults(UpstreamConfig={"Overrides": [{"Name": "b", "BalanceOutboundConnections": "x"}, {}]}),
        "2 errors occurred:\n\t* error in upstream override for b:: "
        + one("invalid value for balance_outbound_connections: x")
        + "\n\t* error in upstream override for :: Name is required\n\n",
    ),
    (
        defaults(EnvoyExtensions=[{}, {"Name": "x"}, {"Name": "builtin/lua", "EnvoyVersion": "new"}]),
        (
            "3 errors occurred:\n\t* invalid EnvoyExtensions[0]: Name is required\n\t* invalid EnvoyExtensions[1][x]: "
            'name "x" is not a built-in extension\n\t* invalid EnvoyExtensions[2].EnvoyVersion: '
            "Malformed constraint: new\n\n"
        ),
    ),
    ({"Kind": "proxy-defaults", "Name": "x"}, 'invalid name ("x"), only "global" is supported'),
    (
        {"Kind": "proxy-defaults", "AccessLogs": {"Type": "file"}},
        "path must be specified when using file type access logs",
    ),
    ({"Kind": "proxy-defaults", "AccessLogs": {"Type": "x"}}, "invalid access log type: x"),
    (
        {"Kind": "proxy-defaults", "FailoverPolicy": {"Mode": "x"}},
        "Failover-policy mode must be one of '', 'sequential', or 'order-by-locality'",
    ),
    (
        {"Kind": "mesh", "TLS": {"Incoming": {"TLSMinVersion": "TLSv1_3", "TLSMaxVersion": "TLSv1_2"}}},
        (
            "error in incoming TLS configuration: configuring max version TLSv1_2 less than the configured min version "
            "TLSv1_3 is invalid"
        ),
    ),
    (
        {"Kind": "mesh", "TLS": {"Outgoing": {"CipherSuites": ["A", "B"]}}},
        "error in outgoing TLS configuration: no matching Envoy TLS cipher suite found for A,B",
    ),
    (
        {"Kind": "mesh", "HTTP": {"Incoming": {"RequestNormalization": {"HeadersWithUnderscoresAction": "x"}}}},
        (
            "error in HTTP incoming request normalization configuration: no matching HeadersWithUnderscoresAction "
            "value found for x, please specify one of [ALLOW, REJECT_REQUEST, DROP_HEADER]"
        ),
    ),
    # gateways
    (ingress(), "No service declared for listener with port 8080"),
    (
        ingress({"Name": "a"}, protocol="udp"),
        "protocol must be 'tcp', 'http', 'http2', or 'grpc'. 'udp' is an unsupported protocol",
    ),
    (
        ingress({"Name": "a"}, {"Name": "b"}, protocol=""),
        (
            "Multiple services per listener are only supported for L7 protocols, 'http', 'grpc' and 'http2' "
            "(listener on port 8080)"
        ),
    ),
    (
        ingress({"Name": "*"}, protocol="tcp"),
        "Wildcard service name is only valid for protocol = 'http' (listener on port 8080)",
    ),
    (ingress({"Name": "a"}, {"Name": "a"}), "Service a cannot be added multiple times (listener on port 8080)"),
    (
        ingress({"Name": "a", "Hosts": ["a.*.x"]}),
        'Host "a.*.x" is not valid, a wildcard specifier is only allowed as the leftmost label',
    ),
    (
        ingress({"Name": "a", "Hosts": ["*"]}, TLS={"Enabled": True}),
        "Host '*' is not allowed when TLS is enabled, all hosts must be valid DNS records to add as a DNSSAN",
    ),
    (
        ingress({"Name": "a", "Hosts": ["x"]}, {"Name": "b", "Hosts": ["x"]}),
        "Hosts must be unique within a specific listener (listener on port 8080)",
    ),
    (
        ingress({"Name": "a", "TLS": {"SDS": {"CertResource": "c"}}}),
        (
            'A service specifying TLS.SDS.CertResource must have at least one item in Hosts (service "a" on listener '
            "on port 8080)"
        ),
    ),
    (
        ingress({"Name": "a", "RequestHeaders": {"Add": {"x": "y"}}}, protocol="tcp"),
        'request headers only valid for http, http2 and grpc protocols (service "a" on listener on port 8080)',
    ),
    ({"Kind": "terminating-gateway", "Name": "t", "Services": [{}]}, "Service name cannot be blank."),
    (
        {"Kind": "terminating-gateway", "Name": "t", "Services": [{"Name": "a", "CertFile": "c"}]},
        'Service "a" must have a CertFile, CAFile, and KeyFile specified for TLS origination',
    ),
    ({"Kind": "api-gateway", "Name": "g"}, "api gateway must have at least one listener"),
    (
        {"Kind": "api-gateway", "Listeners": [{"Name": "l1", "Port": 1}, {"Name": "l2", "Port": 1, "Hostname": "x"}]},
        'listeners "l1" and "l2" cannot be merged',
    ),
    ({"Kind": "tcp-route", "Services": [{}, {}]}, "tcp-route currently only supports one service"),
    ({"Kind": "http-route", "Hostnames": ["*.x"]}, 'host "*.x" must not be a wildcard'),
    (
        {"Kind": "http-route", "Rules": [{"Matches": [{"Headers": [{"Name": "x"}]}]}]},
        "Rule[0], Match[0], Headers[0], match type should be one of present, exact, prefix, suffix, or regex",
    ),
    # the rest
    ({"Kind": "sameness-group", "Name": "g"}, "sameness-groups are an enterprise-only feature"),
    ({"Kind": "bound-api-gateway", "Name": "g"}, "Permission denied: only writeable by controller"),
    ({"Kind": "exported-services", "Name": "x"}, 'exported-services Name must be "default"'),
    (
        {"Kind": "exported-services", "Name": "default", "Services": [{"Name": "a"}]},
        "Services[0]: must have at least one consumer",
    ),
    ({"Kind": "jwt-provider", "Name": "j"}, "JSONWebKeySet is required"),
    (
        {"Kind": "jwt-provider", "Name": "j", "JSONWebKeySet": {}},
        "must specify exactly one of Local or Remote JSON Web key set",
    ),
    (
        {"Kind": "jwt-provider", "Name": "j", "JSONWebKeySet": {"Local": {"JWKS": "?"}}},
        "JWKS must be valid base64 encoded string",
    ),
    ({"Kind": "inline-certificate", "Name": "c"}, "failed to parse private key PEM"),
]


@pytest.mark.parametrize(("raw", "text"), REFUSED)
def test_what_consul_refuses_is_refused_in_its_words(raw: dict[str, Any], text: str) -> None:
    entry = decode_entry(raw)
    with pytest.raises(EntryError) as caught:
        normalise_entry(entry)
    assert str(caught.value) == text


READ_BACK = [
    (
        {"kind": "service-defaults", "name": 5, "PROTOCOL": "HTTP", "max_inbound_connections": "0x10"},
        {
            "Kind": "service-defaults",
            "Name": "5",
            "Protocol": "http",
            "TransparentProxy": {},
            "MeshGateway": {},
            "Expose": {},
            "MaxInboundConnections": 16,
        },
    ),
    (
        {"Kind": "proxy-defaults", "Config": {"a": ["b"], "c": [{"d": [1]}], "e": [1, 2]}, "Hash": 5, "ModifyIndex": 7},
        {
            "Kind": "proxy-defaults",
            "Name": "global",
            "Config": {"a": "b", "c": {"d": 1}, "e": [1, 2]},
            "TransparentProxy": {},
            "MeshGateway": {},
            "Expose": {},
            "AccessLogs": {},
        },
    ),
    ({"Kind": "mesh"}, {"Kind": "mesh", "TransparentProxy": {"MeshDestinationsOnly": False}}),
    (
        router({"Match": {"http": {"Methods": "get"}}, "Destination": {"RequestTimeout": 90e9, "NumRetries": -1}}),
        router(
            {
                "Match": {"HTTP": {"Methods": ["GET"]}},
                "Destination": {"RequestTimeout": "1m30s", "NumRetries": 2**32 - 1},
            }
        ),
    ),
    (
        splitter({"Weight": 33.333}, {"Weight": 66.667, "Service": "b"}),
        splitter({"Weight": 33.33}, {"Weight": 66.67, "Service": "b"}),
    ),
    (
        resolver(LoadBalancer={}, Failover={"*": {"Datacenters": "dc2"}}, Subsets={}, ConnectTimeout="90s"),
        resolver(LoadBalancer={}, Failover={"*": {"Datacenters": ["dc2"]}}, ConnectTimeout="1m30s"),
    ),
    (
        hashed(Field="cookie", FieldValue="x", CookieConfig={"TTL": "1h"}),
        hashed(Field="cookie", FieldValue="x", CookieConfig={"TTL": 3_600_000_000_000}),
    ),
    (
        intentions({"Name": "*", "Action": "deny"}, {**ALLOW, "LegacyID": "x", "Precedence": 77}),
        intentions(
            {"Name": "web", "Action": "allow", "Precedence": 9, "Type": "consul"},
            {"Name": "*", "Action": "deny", "Precedence": 8, "Type": "consul"},
        ),
    ),
    (
        intentions({"Name": "*", "Action": "deny"}, ALLOW, name="*"),
        intentions(
            {"Name": "web", "Action": "allow", "Precedence": 6, "Type": "consul"},
            {"Name": "*", "Action": "deny", "Precedence": 5, "Type": "consul"},
            name="*",
        ),
    ),
    (
        ingress({"Name": "a", "MaxConnections": -1}, protocol="HTTP"),
        ingress({"Name": "a", "Hosts": None, "MaxConnections": 4294967295}, TLS={"Enabled": False}),
    ),
    (
        {"Kind": "terminating-gateway", "Name": "t"},
        {"Kind": "terminating-gateway", "Name": "t", "Services": None},
    ),
    (
        {"Kind": "tcp-route", "Name": "r", "Parents": {"Name": "g"}},
        {
            "Kind": "tcp-route",
            "Name": "r",
            "Parents": [{"Kind": "api-gateway", "Name": "g", "SectionName": ""}],
            "Services": None,
            "Status": {"Conditions": None},
        },
    ),
    (
        {"Kind": "jwt-provider", "Name": "j", "JSONWebKeySet": {"Local": {"Filename": "f"}}},
        {"Kind": "jwt-provider", "Name": "j", "JSONWebKeySet": {"Local": {"Filename": "f"}}, "ClockSkewSeconds": 30},
    ),
]


@pytest.mark.parametrize(("raw", "stored"), READ_BACK)
def test_an_entry_is_read_back_as_consul_shows_it(raw: dict[str, Any], stored: dict[str, Any]) -> None:
    entry = normalise_entry(decode_entry(raw))
    assert entry == stored
    assert normalise_entry(entry) == entry


def test_entries_are_kept_by_kind_and_name_in_any_case() -> None:
    entries = Entries().put(resolver()).put({**resolver(), "Name": "B"}).put({"Kind": "mesh"})
    assert entries.get("service-resolver", "A") == resolver()
    assert [entry_name(entry) for entry in entries.of_kind("service-resolver")] == ["a", "B"]
    assert entry_name(entries.of_kind("mesh")[0]) == "mesh"
    replaced = entries.put({**resolver(), "Name": "b"})
    assert [entry["Name"] for entry in replaced.of_kind("service-resolver")] == ["a", "b"]
    assert replaced.delete("service-resolver", "A").get("service-resolver", "a") is None
    assert entries.delete("service-router", "a") == entries
    assert len(entries) == 3


def test_the_kinds_that_nobody_may_write_are_not_offered() -> None:
    assert "service-router" in KINDS
    assert not {"bound-api-gateway", "sameness-group"} & set(KINDS)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("Service.Meta.version == v1", ""),
        ("not not (a in b or c is not empty)", ""),
        ("a ==", '1:5 (4): no match found, expected: "-", "0", "\\"", "`", [ \\t\\r\\n], [1-9] or [a-zA-Z]'),
        ("(a == b", '1:8 (7): rule "grouping": Unmatched parentheses'),
        ("a == 01", '1:7 (6): rule "number": Invalid number literal'),
        ('a == "x', '1:8 (7): rule "string": Unterminated string literal'),
        ("a[1] == x", '1:3 (2): rule "index": Invalid index'),
        ('a["x" == x', '1:7 (6): rule "index": Unclosed index expression'),
        ('a == "\\q"', '1:6 (5): rule "string": invalid syntax'),
        ("a in 5", '1:6 (5): rule "match": Invalid selector'),
        ("(" * 33 + "a == b" + ")" * 33, "filter nests deeper than 32 levels"),
        ("(" * 32 + "a == b" + ")" * 32, ""),
        ("not " * 2000 + "a == b", ""),
        (" and ".join(["a == b"] * 2000), ""),
    ],
)
def test_a_filter_is_refused_in_the_words_of_consuls_parser(source: str, text: str) -> None:
    assert syntax_error(source) == text


@pytest.mark.parametrize(
    ("kind", "entry", "found"),
    [
        ("ingress-gateway", {"Listeners": [{"Port": 1, "Quic": True, "Old": 0}]}, ("Listeners[0].Quic",)),
        ("terminating-gateway", {"Services": [{"Name": "a"}, {"Name": "b", "Pin": "x"}]}, ("Services[1].Pin",)),
        ("api-gateway", {"Listeners": [{"Default": {"JWT": {"Providers": [{"Name": "x"}]}}}]}, ()),
        ("http-route", {"Namespace": "default", "Partition": "x", "ModifyIndex": 7}, ("Partition",)),
        ("service-resolver", {"Subsets": {"v1": {"Filter": "x", "Sort": "y"}}}, ("Subsets[v1].Sort",)),
        ("mesh", None, ()),
    ],
)
def test_fields_that_nobody_knows_are_found(kind: str, entry: object, found: tuple[str, ...]) -> None:
    assert strangers(kind, entry) == found
