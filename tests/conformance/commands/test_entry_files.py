# ruff: noqa: E501 - tables of files, as one types them
"""Files of config entries: written, read back and shown as by the stock command line; mistakes are named by line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.command_lines import BOTH, Ran, entry, ours, stock
from harness.servers import ConsulServer

ENTRIES = {
    "CamelCase": """
Kind     = "service-splitter"
Name     = "cmd-web"
Splits = [
  { Weight = 90, Service = "cmd-old" },
  { Weight = 10, Service = "cmd-api" },
]
""",
    "snake_case": """
kind = "service-splitter"
name = "cmd-web"
splits = [
  {
    weight  = 60.5
    service = "cmd-api"
    request_headers { set { "x-a" = "b" } }
  },
  {
    weight = 39.5
    service = "cmd-old"
  }
]
""",
    "mixed-case": 'Kind="service-defaults"\nname="cmd-a"\nProtocol="http"\nmax_inbound_connections=5\n'
    'BalanceInboundConnections="exact_balance"',
    "repeated-blocks": """
Kind = "service-splitter"
Name = "cmd-web"
Splits {
  Weight = 50
  Service = "cmd-api"
}
Splits {
  Weight = 50
  Service = "cmd-old"
}
""",
    "one-block-for-a-list": 'Kind = "service-splitter"\nName = "cmd-web"\nSplits { Weight = 100 Service = "cmd-api" }',
    "labelled-blocks": """
Kind = "service-resolver"
Name = "cmd-web"
DefaultSubset = "v1"
Subsets "v1" {
  Filter = "Service.Meta.version == v1"
}
Subsets "v2" {
  Filter = "Service.Meta.version == v2"
  OnlyPassing = true
}
""",
    "map-of-blocks": """
Kind = "service-resolver"
Name = "cmd-web"
ConnectTimeout = "15s"
RequestTimeout = "1m30s"
Subsets = {
  "v1" = { Filter = "Service.Meta.version == v1" }
  v2 { Filter = "Service.Meta.version != v1" }
}
Failover = {
  "*" = { Service = "cmd-old" }
  v1 { Targets = [{ Service = "cmd-api" }, { Service = "cmd-old" }] }
}
LoadBalancer {
  Policy = "ring_hash"
  RingHashConfig { MinimumRingSize = 1024 }
  HashPolicies = [{ Field = "header", FieldValue = "x-user", Terminal = true }]
}
""",
    "redirect": 'Kind = "service-resolver"\nName = "cmd-old"\nRedirect {\n  Service = "cmd-api"\n  Datacenter = "dc1"\n}\n',
    "router": """
Kind = "service-router"
Name = "cmd-web"
Routes = [
  {
    Match {
      HTTP {
        PathPrefix = "/admin"
        Methods = ["GET", "POST"]
        Header = [
          { Name = "x-debug", Exact = "1" },
          { Name = "x-trace", Present = true, Invert = true },
        ]
        QueryParam = [{ Name = "q", Regex = "^[a-z]+$" }]
      }
    }
    Destination {
      Service        = "cmd-api"
      PrefixRewrite  = "/"
      RequestTimeout = "5s"
      IdleTimeout    = 1500000000
      NumRetries     = 3
      RetryOnConnectFailure = true
      RetryOnStatusCodes    = [502, 503]
      ResponseHeaders { Remove = ["server"] Add { a = "b" } }
    }
  },
  { Match { HTTP { PathExact = "/x" } }, Destination { Service = "cmd-old" } },
]
""",
    "router-snake": """
kind = "service-router"
name = "cmd-web"
routes {
  match { http { path_regex = "/a/.*" case_insensitive = true } }
  destination { service = "cmd-api" num_retries = 2 retry_on = ["reset"] }
}
routes {
  match { http { query_param { name = "a" exact = "b" } } }
  destination { service_subset = "" request_timeout = "250ms" }
}
""",
    "intentions": """
Kind = "service-intentions"
Name = "cmd-web"
Sources = [
  { Name = "cmd-api", Action = "allow", Description = "it asks" },
  {
    Name = "cmd-old"
    Permissions = [
      {
        Action = "deny"
        HTTP { PathPrefix = "/admin" }
      },
      {
        Action = "allow"
        HTTP {
          PathRegex = "/v[0-9]+/.*"
          Methods   = ["GET"]
          Header    = [{ Name = "x-a", Contains = "b", IgnoreCase = true }]
        }
      },
    ]
  },
  { Name = "*", Action = "deny" },
]
Meta { owner = "team" }
""",
    "intentions-snake": 'kind = "service-intentions"\nname = "cmd-api"\nsources { name = "cmd-web" action = "allow" }\n'
    'sources { name = "cmd-old" permissions { action = "allow" http { path_exact = "/" } } }\n',
    "intentions-wildcard": 'Kind="service-intentions"\nName="cmd-*x"\nSources=[]\n'.replace("cmd-*x", "cmd-y")
    + 'Sources { Name = "*" Action = "deny" }',
    "defaults-all": """
Kind = "service-defaults"
Name = "cmd-b"
Protocol = "http2"
LocalConnectTimeoutMs = 2000
LocalRequestTimeoutMs = 3000
MeshGateway { Mode = "local" }
Expose {
  Checks = true
  Paths = [{ Path = "/health", LocalPathPort = 8080, ListenerPort = 21500, Protocol = "http" }]
}
UpstreamConfig {
  Defaults {
    ConnectTimeoutMs = 500
    Limits { MaxConnections = 10 MaxPendingRequests = 20 MaxConcurrentRequests = 30 }
    PassiveHealthCheck { Interval = "10s" MaxFailures = 5 BaseEjectionTime = "20s" }
  }
  Overrides = [{ Name = "cmd-api", Protocol = "http" }]
}
Meta = { "a" = "b", c = "d" }
""",
    "defaults-destination": 'Kind="service-defaults"\nName="cmd-c"\nProtocol="tcp"\n'
    'Destination { Addresses = ["a.example.com", "192.0.2.1"] Port = 443 }',
    "defaults-transparent": 'kind="service-defaults"\nname="cmd-d"\nmode="transparent"\n'
    "transparent_proxy { outbound_listener_port = 15001 dialed_directly = true }",
    "proxy-defaults": """
Kind = "proxy-defaults"
Name = "global"
Config {
  protocol = "http"
  local_connect_timeout_ms = 1000
  handshake_timeout_ms = 0x10
  ratio = 1.5
  large = 1e3
  octal = 010
  flag = true
  nothing {}
  nested { deep { deeper = [1, "two", false] } }
  lists = [[1, 2], [3], []]
  blocks = [{ a = 1 }, { a = 2 }]
}
AccessLogs { Enabled = true Type = "file" Path = "/tmp/x" }
""",
    "proxy-defaults-without-name": 'Kind = "proxy-defaults"\nConfig { a = 1 }\n',
    "heredoc": 'Kind = "proxy-defaults"\nName = "global"\nConfig {\n  envoy_a = <<EOF\n{\n  "a": "${b}"\n}\nEOF\n  b = 1\n}\n',
    "heredoc-indented": 'Kind = "proxy-defaults"\nName = "global"\nConfig {\n  a = <<-EOF\n    x\n      y\n    EOF\n}\n',
    "heredoc-not-all-indented": 'Kind="proxy-defaults"\nName="global"\nConfig {\n  a = <<-EOF\n    x\n  y\n    EOF\n}\n',
    "heredoc-end-indented": 'Kind = "proxy-defaults"\nName = "global"\nConfig {\n  a = <<EOF\nx\n  EOF\n}\n',
    "comments": """# of one line
// of another kind
/* of
   several */ Kind = "service-defaults" # at the end
Name = /* inside */ "cmd-e" // "here"
Protocol = "http" /* # */
""",
    "escapes": r'Kind = "service-defaults"'
    "\n"
    r'Name = "cmd-f"'
    "\n"
    r'Meta { a = "q\"b\\s\tt\nn" b = "\u00e9\x41\101\U0001F600" c = "\xc3\xa9" }',
    "unicode": 'Kind = "service-defaults"\nName = "cmd-g"\nMeta { "größe" = "é 😀" é = "ß" }\n',
    "html-signs": 'Kind = "service-defaults"\nName = "cmd-h"\nMeta { a = "<b> & \'c\' \\u2028" }\n',
    "interpolation-kept": 'Kind = "service-defaults"\nName = "cmd-i"\nMeta { a = "${x("y")} $z" }\n',
    "weak-values": 'Kind = "service-defaults"\nName = "cmd-j"\nMaxInboundConnections = "7"\nMeta { a = 5 b = true c = 1.5 }\n',
    "scalar-again": 'Kind = "service-defaults"\nName = "cmd-x"\nName = "cmd-k"\nProtocol = "tcp"\nProtocol = "http"\n',
    "commas-and-one-line": 'Kind = "service-defaults", Name = "cmd-l", Protocol = "http", Meta = {a = "b", c = "d",}',
    "windows-lines": 'Kind = "service-defaults"\r\nName = "cmd-m"\r\nProtocol = "http"\r\n',
    "empty-blocks": 'Kind = "service-defaults"\nName = "cmd-n"\nMeta {}\nMeshGateway {}\nUpstreamConfig {}\n',
    "duration-as-number": 'Kind = "service-resolver"\nName = "cmd-api"\nConnectTimeout = 5000000000\n',
    "ingress": """
Kind = "ingress-gateway"
Name = "cmd-edge"
TLS { Enabled = true TLSMinVersion = "TLSv1_2" }
Defaults { MaxConnections = 100 MaxPendingRequests = 200 }
Listeners = [
  {
    Port = 8080
    Protocol = "http"
    Services = [
      { Name = "cmd-web", Hosts = ["web.example.com"], RequestHeaders { Add { a = "b" } } },
      { Name = "cmd-api", Hosts = ["*.example.org"] },
    ]
  },
  { Port = 9090, Protocol = "tcp", Services = [{ Name = "cmd-tcp" }] },
]
""",
    "ingress-snake": 'kind="ingress-gateway"\nname="cmd-edge2"\nlisteners { port=8443 protocol="http" services { name="*" } }',
    "terminating": """
Kind = "terminating-gateway"
Name = "cmd-egress"
Services = [
  { Name = "cmd-out", CAFile = "/ca.pem", SNI = "out.example.com" },
  { Name = "*", CAFile = "/ca.pem", CertFile = "/c.pem", KeyFile = "/k.pem" },
]
""",
    "mesh": 'Kind = "mesh"\nTransparentProxy { MeshDestinationsOnly = true }\nTLS { Incoming { TLSMinVersion = "TLSv1_3" } }\n'
    "HTTP { SanitizeXForwardedClientCert = true }\n",
    "exported": 'Kind = "exported-services"\nName = "default"\nServices = [{ Name = "cmd-web", Consumers = [{ Peer = "p" }] }]',
    "api-gateway": 'Kind = "api-gateway"\nName = "cmd-gw"\nListeners = [{ Name = "l", Port = 8443, Protocol = "http" }]',
    "http-route": 'Kind = "http-route"\nName = "cmd-route"\nParents = [{ Kind = "api-gateway", Name = "cmd-gw" }]\n'
    'Hostnames = ["a.example.com"]\nRules { Matches { Path { Match = "prefix" Value = "/a" } } Services { Name = "cmd-web" } }',
    "tcp-route": 'Kind = "tcp-route"\nName = "cmd-tcp-route"\nServices = [{ Name = "cmd-tcp" }]',
    "file-system-certificate": 'Kind="file-system-certificate"\nName="cmd-cert"\nCertificate="/c.pem"\nPrivateKey="/k.pem"',
    "jwt-provider": 'Kind="jwt-provider"\nName="cmd-jwt"\nIssuer="i"\nJSONWebKeySet { Local { Filename = "/k" } }\n'
    'Locations = [{ Header { Name = "A" ValuePrefix = "Bearer " Forward = true } }]\nCacheConfig { Size = 5 }',
    "json": '{"Kind": "service-splitter", "Name": "cmd-web", "Splits": [{"Weight": 100, "Service": "cmd-api"}]}',
    "json-snake": '  {"kind":"service-resolver","name":"cmd-web","connect_timeout":"5s","subsets":{"v1":{"only_passing":true}}}',
    "json-lists-of-one": '{"Kind":"proxy-defaults","Name":"global","Config":{"a":[{"b":[{"c":1}]}],"d":[[1]],"e":null}}',
    "json-escapes": '{"Kind":"service-defaults","Name":"cmd-o","Meta":{"a":"\\u00e9\\ud83d\\ude00\\/<&>"}}',
}


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_reads_back_as_the_stock_command_line_writes_it(name: str, server: ConsulServer) -> None:
    Path("entry.hcl").write_bytes(ENTRIES[name].encode())
    seen = []
    for run in BOTH:
        ran = run(server, "config write entry.hcl")
        assert ran.code == 0, ran.err
        found = re.fullmatch(r"Config entry written: (\S+)/(\S+)\n", ran.out)
        assert found, ran.out
        seen.append((found.groups(), entry(server, *found.groups())))
        server.api(f"config/{found[1]}/{found[2]}", "DELETE")
    assert seen[0] == seen[1]


@pytest.mark.parametrize("name", ["CamelCase", "router", "intentions", "html-signs", "json"])
def test_an_entry_of_the_standard_input_is_shown_as_the_stock_command_line_shows_it(
    name: str, server: ConsulServer
) -> None:
    written = ours(server, "config write -", ENTRIES[name])
    assert written.code == 0, written.err
    assert stock(server, "config write -", ENTRIES[name]) == written
    kind, _, called = written.out.removeprefix("Config entry written: ").strip().partition("/")
    assert stock(server, f"config read -kind {kind} -name {called}") == ours(
        server, f"config read -kind {kind} -name {called}"
    )
    server.api(f"config/{kind}/{called}", "DELETE")


WRONG_ENTRIES = {
    "unknown field": ('Kind = "service-defaults"\nName = "cmd-a"\nProtocl = "http"\n', 3, "Protocl"),
    "unknown field of a list": (
        'Kind = "service-splitter"\nName = "cmd-web"\nSplits = [\n  { Weight = 50 },\n  {\n    Wait = 50\n  },\n]\n',
        6,
        "Splits[1].Wait",
    ),
    "unknown field of a block": (
        'Kind = "service-router"\nName = "cmd-web"\nRoutes {\n  Match {\n    HTTP {\n      Path = "/"\n    }\n  }\n}\n',
        6,
        "Routes[0].Match.HTTP.Path",
    ),
    "unknown field in JSON": (
        '{\n  "Kind": "service-defaults",\n  "Name": "cmd-a",\n  "Protocl": "http"\n}\n',
        4,
        "Protocl",
    ),
    "wrong type": ('Kind = "service-defaults"\nName = "cmd-a"\nMeshGateway = "local"\n', 3, "MeshGateway"),
    "wrong number": (
        'Kind = "service-splitter"\nName = "cmd-web"\n\nSplits { Weight = "much" }\n',
        4,
        "Splits[0].Weight",
    ),
    "wrong duration": ('Kind = "service-resolver"\nName = "cmd-web"\nConnectTimeout = "5"\n', 3, "ConnectTimeout"),
    "no kind": ('Name = "cmd-a"\n', 0, "kind"),
    "unknown kind": ('Kind = "service-defualts"\nName = "cmd-a"\n', 0, "service-defualts"),
    "kind is no text": ("Kind = 5\n", 0, "Kind"),
    "nothing": ("", 0, "kind"),
    "open text": ('Kind = "service-defaults\nName = "cmd-a"\n', 1, "not terminated"),
    "open block": ('Kind = "service-defaults"\nMeta {\n  a = "b"\n', 4, "end of the text"),
    "open list": ('Kind = "service-splitter"\nSplits = [\n', 3, "a value was expected"),
    "open comment": ('Kind = "service-defaults"\n/* x\n', 2, "comment"),
    "open heredoc": ('Kind = "service-defaults"\nName = <<EOF\nx\n', 2, "heredoc"),
    "bare word": ('Kind = "service-defaults"\nName = web\n', 2, "web"),
    "colon": ('Kind: "service-defaults"\n', 1, ":"),
    "single quotes": ("Kind = 'service-defaults'\n", 1, "'"),
    "null": ('Kind = "service-defaults"\nName = null\n', 2, "null"),
    "wrong escape": ('Kind = "service-defaults"\nName = "\\q"\n', 2, "escape"),
    "wrong number sign": ('Kind = "service-defaults"\nName = "cmd-a"\nMaxInboundConnections = 08\n', 3, "08"),
    "value without a key": ('Kind = "service-defaults"\n= 5\n', 2, "="),
    "no comma in a list": ('Kind = "proxy-defaults"\nConfig { a = [1 2] }\n', 2, "comma"),
    "two kinds of value": ('Kind = "proxy-defaults"\nConfig {\n  a = "x"\n  a = true\n}\n', 4, "'a'"),
    "label and no label": ('Kind = "proxy-defaults"\nConfig {\n  a "b" {}\n  a {}\n}\n', 4, "'a'"),
    "block twice for one": (
        'Kind = "service-resolver"\nName = "cmd-web"\nRedirect { Service = "a" }\nRedirect { Service = "b" }\n',
        3,
        "Redirect",
    ),
    "namespace": ('Kind = "service-defaults"\nName = "cmd-a"\nNamespace = "x"\n', 3, "Namespace"),
    "JSON cut off": ('{"Kind": "service-defaults",\n "Name": ', 2, "JSON"),
    "JSON with more behind it": ('{"Kind": "service-defaults", "Name": "cmd-a"}\n{}\n', 2, "JSON"),
    "JSON with NaN": ('{"Kind": "proxy-defaults",\n "Config": {"a": NaN}}', 2, "NaN"),
    "a list": ("[]\n", 1, "["),
    "a zero byte": ('Kind = "service-defaults"\nName = "a\0b"\n', 2, "not terminated"),
    "weights that do not add up": (
        'Kind = "service-splitter"\nName = "cmd-web"\nSplits { Weight = 50 }\n',
        0,
        "sum of all split weights must be 100",
    ),
    "a protocol that does not fit": (
        'Kind = "service-splitter"\nName = "cmd-z"\nSplits { Weight = 100 }\n',
        0,
        "protocol",
    ),
}


@pytest.mark.parametrize("name", WRONG_ENTRIES)
def test_a_wrong_entry_is_refused_by_both_and_ours_names_file_line_and_field(name: str, server: ConsulServer) -> None:
    text, line, field = WRONG_ENTRIES[name]
    Path("entry.hcl").write_bytes(text.encode())
    left, right = (run(server, "config write entry.hcl") for run in BOTH)
    assert (left.code, left.out) == (right.code, right.out) == (1, "")
    place = f"entry.hcl:{line}:" if line else "entry.hcl:"
    assert place in right.err
    assert field in right.err
    told = re.search(r"At (\d+):", left.err)
    if told and "not terminated" not in left.err and "end" not in right.err:  # Consul tells the end of what is open
        assert f"entry.hcl:{told[1]}:" in right.err


def test_a_file_that_is_not_utf8_is_told(server: ConsulServer) -> None:
    Path("entry.hcl").write_bytes(b'Kind = "service-defaults"\nName = "cmd-\xff"\n')
    assert ours(server, "config write entry.hcl") == Ran(1, "", "lictor: entry.hcl:2: is not UTF-8\n")


def test_a_null_in_a_list_does_not_reach_a_server_that_it_ends(server: ConsulServer) -> None:
    """Consul 1.21 panics on it, and again at each start: the stock command line sends it."""
    ran = ours(server, "config write -", '{"Kind":"proxy-defaults","Name":"global",\n"Config":{"a":[1,null]}}')
    assert ran.code == 1
    assert "the standard input:2: Config.a[1]: null in a list" in ran.err
