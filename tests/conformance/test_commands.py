# ruff: noqa: E501 - tables of files, as one types them
"""The operator's words against the stock command line: each runs both in turn, on a real Consul and on ours.

What may differ stands in DIFFERENT, with its reason.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import ssl
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.certificates import Authority, Mistakes
from harness.servers import REPOSITORY, ConsulServer, Program, consul_program
from lictor.cli import main
from lictor.up.ports import free_ports

HTTP = ("cmd-web", "cmd-api", "cmd-old")


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command line did."""

    code: int
    out: str
    err: str


def stock(consul: ConsulServer, words: str, stdin: str = "") -> Ran:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CONSUL_")}
    done = subprocess.run(
        [str(consul_program()), *shlex.split(words)],
        capture_output=True,
        input=stdin.encode(),
        env={**environment, **consul.environment},
        check=False,
        timeout=60,
    )
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


def ours(consul: ConsulServer, words: str, stdin: str = "") -> Ran:
    out, err, held = io.StringIO(), io.StringIO(), sys.stdin
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin.encode()))
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main(shlex.split(words), consul.environment)
            except SystemExit as left:
                code = int(left.code or 0)
    finally:
        sys.stdin = held
    return Ran(code, out.getvalue(), err.getvalue())


BOTH = (stock, ours)


def bare(tree: Any) -> Any:
    """Return what was read back without what differs from one write to the next."""
    passing = {"CreateIndex", "ModifyIndex", "Hash", "LegacyID", "LegacyCreateTime", "LegacyUpdateTime", "ContentHash"}
    passing |= {"LastTransitionTime", "Conditions", "CreatedAt", "UpdatedAt"}
    if isinstance(tree, dict):
        return {key: bare(value) for key, value in tree.items() if key not in passing}
    return [bare(element) for element in tree] if isinstance(tree, list) else tree


def entry(consul: ConsulServer, kind: str, name: str) -> Any:
    found = [row for row in consul.api(f"config/{kind}") if row.get("Name", kind) == name]
    return bare(found[0]) if found else None


KINDS = (
    *("service-intentions", "ingress-gateway", "terminating-gateway", "service-router", "service-splitter"),
    *("http-route", "tcp-route", "api-gateway", "service-resolver", "exported-services", "mesh", "proxy-defaults"),
    "service-defaults",
)


def forget(consul: ConsulServer) -> None:
    """Remove what these tests have written: what is named cmd-, and the entries of which there is one."""
    for kind in KINDS:
        for row in consul.api(f"config/{kind}"):
            name = row.get("Name", "mesh")
            if name.startswith("cmd-") or name in {"mesh", "global", "default"}:
                consul.api(f"config/{kind}/{name}", "DELETE")
    forget_services(consul)


def forget_services(consul: ConsulServer) -> None:
    for name in consul.api("agent/services"):
        if name.startswith("cmd-") and not name.endswith("-sidecar-proxy"):
            consul.api(f"agent/service/deregister/{name}", "PUT")


@pytest.fixture(autouse=True)
def _in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def server(consul: ConsulServer) -> Iterator[ConsulServer]:
    """A Consul with three http services, as bare again afterwards as it was: each test removes what it wrote."""
    forget(consul)
    consul.write(*({"Kind": "service-defaults", "Name": name, "Protocol": "http"} for name in HTTP))
    yield consul
    forget(consul)


# --- files of entries ----------------------------------------------------------------------------------------------

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


# --- random HCL ----------------------------------------------------------------------------------------------------

SPACE = st.sampled_from([" ", "\n", "\n\n", "  # c\n", "// c\n", "/* c */", "/* x\ny */ ", "\t", "\r\n"])
KEY = st.sampled_from(
    ["a", "b", "Kay", "snake_key", "a-b", "a.b", "_u", "x1", "é", '"q"', '"a b"', '"\\u00e9"', '""', "true"]
)
PART = st.sampled_from(
    [
        "x",
        "é",
        "😀",
        r"\n",
        r"\"",
        r"\\",
        r"\u00e9",
        r"\x41",
        r"\101",
        r"\xc3",
        r"\xa9",
        "${a}",
        '${b("c")}',
        "$",
        "{",
        "#",
        "//",
        r"\q",
    ]
)
TEXT = st.lists(PART, max_size=4).map(lambda parts: f'"{"".join(parts)}"')
NUMBER = st.sampled_from(
    [
        "0",
        "1",
        "-1",
        "010",
        "08",
        "0x1F",
        "-0x1",
        "1.5",
        "-0.25",
        ".5",
        "1.",
        "1e3",
        "1E-2",
        "+1",
        "1_0",
        "1a",
        "0x",
        "1e400",
        "-.5",
        "00",
        "0b1",
        "9223372036854775807",
        "9223372036854775808",
    ]
)
LINE = st.sampled_from(["x", "  y z", "\tq", "", "    ${a}", r"  \n", "EOF2"])


@st.composite
def heredoc(draw: st.DrawFn) -> str:
    lines = draw(st.lists(LINE, max_size=3))
    end = draw(st.sampled_from(["", "  ", "    "]))
    return "\n".join([f"<<{draw(st.sampled_from(['', '-']))}EOF", *lines, f"{end}EOF", ""])


def objects(value: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    item = st.one_of(
        st.tuples(KEY, st.sampled_from([" = ", "=", " =\n", " /*c*/= "]), value).map("".join),
        st.tuples(KEY, st.just(" {"), value.map(lambda one: f"\nz = {one}\n"), st.just("}")).map("".join),
        st.tuples(KEY, st.just(" "), KEY, value.map(lambda one: f" {{\nz = {one}\n}}")).map("".join),
    )
    end = st.sampled_from(["\n", "\n", ",", " ", ",\n"])
    return st.lists(st.tuples(item, end).map("".join), max_size=4).map("".join)


def deeper(value: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    comma = st.sampled_from([", ", ",", ",\n", " , ", " "])
    listed = st.tuples(comma, st.lists(value, max_size=3), st.sampled_from(["", ",", "\n"]))
    return st.one_of(
        listed.map(lambda drawn: f"[{drawn[0].join(drawn[1])}{drawn[2]}]"),
        st.tuples(SPACE, objects(value)).map(lambda drawn: f"{{{drawn[0]}{drawn[1]}}}"),
    )


VALUE = st.recursive(st.one_of(TEXT, NUMBER, st.sampled_from(["true", "false", "null", "foo"]), heredoc()), deeper)


def stored(server: ConsulServer, run: Any, text: str) -> Any:
    """Return what a text makes of proxy-defaults, None when it is refused."""
    server.api("config/proxy-defaults/global", "DELETE")
    if run(server, "config write -", text).code != 0:
        return None
    return entry(server, "proxy-defaults", "global")["Config"]


@settings(max_examples=25)
@given(body=st.tuples(SPACE, objects(VALUE)).map("".join))
def test_random_hcl_reads_back_as_the_stock_command_line_writes_it(body: str, server: ConsulServer) -> None:
    text = f'Kind = "proxy-defaults"\nName = "global"\nConfig {{{body}\nz = 1\n}}\n'
    assert stored(server, ours, text) == stored(server, stock, text)


# --- files of services ---------------------------------------------------------------------------------------------

SIDECAR = 'service { name="cmd-s" port=80 connect { sidecar_service { port=20001 %s } } }'
SERVICES = {
    "one": 'service { name="cmd-s" port=80 }',
    "fields": 'service {\n  name = "cmd-s"\n  id = "cmd-s-1"\n  port = 8080\n  address = "192.0.2.1"\n  tags = ["a", "b"]\n'
    '  meta = { version = "1" }\n  enable_tag_override = true\n  weights { passing = 5 }\n}',
    "capital": 'Service {\n  Name = "cmd-s"\n  Port = 80\n  Tags = ["x"]\n}',
    "several": 'services { name="cmd-s" port=80 }\nservices { name="cmd-t" port=81 }',
    "a list": 'services = [\n  { name="cmd-s", port=80 },\n  { name="cmd-t", port=81 },\n]',
    "service and services": 'service { name="cmd-s" }\nservices { name="cmd-t" }',
    "a socket": 'service { name="cmd-s" socket_path="/tmp/cmd.sock" }',
    "addresses": 'service { name="cmd-s" port=80 tagged_addresses { lan { address="192.0.2.1" port=5 } wan = { address="192.0.2.2" port=6 } } }',
    "locality": 'service { name="cmd-s" port=80 locality { region="r" zone="z" } token="x" }',
    "a check": 'service { name="cmd-s" port=80 check { http="http://127.0.0.1:1/" method="POST" body="b" header { A=["b","c"] }'
    ' interval="10s" timeout="1s" disable_redirects=true } }',
    "checks": 'service { name="cmd-s" port=80 checks = [ { id="cmd-c" name="n" tcp="127.0.0.1:1" interval="10s" }, { ttl="30s" notes="x" } ] }',
    "checks as blocks": 'service { name="cmd-s" checks { ttl="30s" status="passing" } checks { ttl="40s" success_before_passing=2 } }',
    "a grpc check": 'service { name="cmd-s" check { grpc="127.0.0.1:1" grpc_use_tls=true tls_skip_verify=true tls_server_name="x"'
    ' interval="10s" deregister_critical_service_after="90m" } }',
    "an alias check": 'service { name="cmd-s" check { alias_service="consul" } }',
    "a sidecar": SIDECAR % "",
    "upstreams": SIDECAR % 'proxy { upstreams { destination_name="cmd-db" local_bind_port=9191 } }',
    "several upstreams": SIDECAR
    % 'proxy { upstreams { destination_name="cmd-db" local_bind_port=9191 config { a=1 limits { max=[1] } } }'
    ' upstreams { destination_name="cmd-api" local_bind_port=9192 local_bind_address="127.0.0.2" mesh_gateway { mode="local" } } }',
    "upstreams as a list": SIDECAR
    % 'proxy { upstreams = [ { destination_name="cmd-db", local_bind_port=9191 }, { destination_name="cmd-q" destination_type="prepared_query" local_bind_port=9192 } ] config { protocol="http" } }',
    "upstream by a socket": SIDECAR
    % 'proxy { upstreams { destination_name="cmd-db" local_bind_socket_path="/tmp/s" local_bind_socket_mode="0700" } }',
    "sidecar's own": SIDECAR % 'tags=["a"] meta { a="b" } check { ttl="10s" }',
    "exposed": SIDECAR
    % 'proxy { expose { checks=true paths { path="/h" local_path_port=1 listener_port=2 } } mode="direct" }',
    "a proxy of its own": 'service { kind="connect-proxy" name="cmd-p" port=81 proxy { destination_service_name="cmd-s" destination_service_id="cmd-s-1" local_service_address="127.0.0.1" local_service_port=80 config { a=[[1]] b { c { d=1 } } } } }',
    "a gateway": 'service { kind="terminating-gateway" name="cmd-gw" port=8443 }',
    "native": 'service { name="cmd-s" port=80 connect { native=true } }',
    "a heredoc": 'service { name="cmd-s" check { ttl="10s" notes=<<EOF\nhello\n  there\nEOF\n } }',
    "comments": '# a\nservice { // b\n  name = "cmd-s" /* c */\n}\n',
    "json": '{"service": {"name": "cmd-s", "port": 80, "connect": {"sidecar_service": {}}}}',
    "json several": '{"services": [{"name": "cmd-s", "port": 80, "check": {"TTL": "10s"}}, {"Name": "cmd-t", "Tags": null}]}',
}


def registered(consul: ConsulServer) -> Any:
    """Return the services and checks of these tests."""
    mine = [name for name in consul.api("agent/services") if name.startswith("cmd-")]
    checks = {key: check for key, check in consul.api("agent/checks").items() if check["ServiceID"].startswith("cmd-")}
    for check in checks.values():
        check.pop("Output")
        check.pop("Status")
    return bare([{name: consul.api(f"agent/service/{name}") for name in mine}, checks])


@pytest.mark.parametrize("name", SERVICES)
def test_services_of_a_file_are_registered_as_the_stock_command_line_registers_them(
    name: str, server: ConsulServer
) -> None:
    file = Path("service.json" if name.startswith("json") else "service.hcl")
    file.write_text(SERVICES[name])
    seen = []
    for run in BOTH:
        registering = run(server, f"services register {file}")
        assert registering.code == 0, registering.err
        seen.append((registering, registered(server), run(server, f"services deregister {file}")))
        assert registered(server) == [{}, {}]
    assert seen[0] == seen[1]


WRONG_SERVICES = {
    "unknown field": ('service {\n  name = "cmd-s"\n  prt = 80\n}\n', 3, "service.prt"),
    "unknown field of a check": (
        'service {\n  name = "cmd-s"\n  check {\n    htp = "x"\n  }\n}\n',
        4,
        "service.check.htp",
    ),
    "unknown field of an upstream": (
        """services {
  name = "cmd-s"
}
services {
  name = "cmd-t"
  connect {
    sidecar_service {
      proxy {
        upstreams {
          destination = "x"
        }
      }
    }
  }
}
""",
        10,
        "services[1].connect.sidecar_service.proxy.upstreams[0].destination",
    ),
    "a label": ('service "cmd-s" {\n  port = 80\n}\n', 1, "service.cmd-s"),
    "a text for a number": ('service {\n  name = "cmd-s"\n  port = "80"\n}\n', 3, "service.port"),
    "a number for a text": ("service {\n  name = 5\n}\n", 2, "service.name"),
    "a number for a flag": (
        'service {\n  name = "cmd-s"\n  enable_tag_override = 1\n}\n',
        3,
        "service.enable_tag_override",
    ),
    "a text for a list": ('service {\n  name = "cmd-s"\n  tags = "a"\n}\n', 3, "service.tags"),
    "a number in a list": ('service {\n  name = "cmd-s"\n  tags = ["a", 5]\n}\n', 3, "service.tags[1]"),
    "a number in meta": ('service {\n  name = "cmd-s"\n  meta {\n    a = 5\n  }\n}\n', 4, "service.meta.a"),
    "a block twice": ('service {\n  name = "cmd-s"\n  meta { a = "b" }\n  meta { c = "d" }\n}\n', 3, "service.meta"),
    "service twice": ('service { name = "cmd-s" }\nservice { name = "cmd-t" }\n', 1, "service"),
    "a text for a block": ('service = "cmd-s"\n', 1, "service"),
    "a wrong duration": ('service {\n  name = "cmd-s"\n  check {\n    ttl = "10x"\n  }\n}\n', 4, "service.check.ttl"),
    "a number for a duration": (
        'service {\n  name = "cmd-s"\n  check {\n    ttl = 10\n  }\n}\n',
        4,
        "service.check.ttl",
    ),
    "an empty check": ('service {\n  name = "cmd-s"\n  check {}\n}\n', 3, "service.check"),
    "no name": ("service {\n  port = 80\n}\n", 0, "Missing service name"),
    "a namespace": ('service {\n  name = "cmd-s"\n  namespace = "x"\n}\n', 3, "service.namespace"),
    "wrong HCL": ("service {\n  name = cmd-s\n}\n", 2, "cmd-s"),
    "what the server refuses": (
        'service {\n  kind = "mesh-gateway"\n  name = "cmd-s"\n}\n',
        0,
        "Port must be non-zero",
    ),
}


@pytest.mark.parametrize("name", WRONG_SERVICES)
def test_a_wrong_service_is_refused_by_both_and_ours_names_file_line_and_field(name: str, server: ConsulServer) -> None:
    text, line, field = WRONG_SERVICES[name]
    Path("service.hcl").write_text(text)
    left, right = (run(server, "services register service.hcl") for run in BOTH)
    assert (left.code, left.out) == (right.code, right.out) == (1, "")
    assert f"service.hcl:{line}:" in right.err if line else "service.hcl" in right.err
    assert field in right.err
    assert registered(server) == [{}, {}]


def test_every_mistake_of_every_file_is_told_at_once(server: ConsulServer) -> None:
    Path("a.hcl").write_text('service {\n  nme = "cmd-s"\n  prt = 5\n}\n')
    Path("b.hcl").write_text("service {\n  port = true\n}\n")
    told = ours(server, "services register a.hcl b.hcl").err
    assert [line.split(": ")[1] for line in told.splitlines()] == ["a.hcl:2", "a.hcl:3", "b.hcl:2"]


# --- invocations ---------------------------------------------------------------------------------------------------

FILES = {
    "a.hcl": 'Kind="service-defaults"\nName="cmd-a"\nProtocol="http"\n',
    "b.hcl": 'Kind="service-defaults"\nName="cmd-b"\nProtocol="tcp"\n',
    "wrong.hcl": 'Kind="service-defaults"\nName="cmd-a"\nProtocl="http"\n',
    "nokind.hcl": 'Name="cmd-a"\n',
    "row.json": '{"SourceName": "cmd-f1", "DestinationName": "cmd-f2", "Action": "deny", "Description": "d"}',
    "row2.json": '{"SourceName": "cmd-f3", "DestinationName": "cmd-f2", "Action": "allow"}',
    "row.hcl": 'SourceName = "cmd-f4"\nDestinationName = "cmd-f2"\nAction = "allow"\n',
    "nosource.json": '{"DestinationName": "cmd-f2", "Action": "deny"}',
    "l7.json": '{"SourceName": "cmd-f5", "DestinationName": "cmd-web", "Permissions": [{"Action": "allow", "HTTP": {"PathPrefix": "/"}}]}',
    "s.hcl": 'service { name="cmd-s" port=80 }\n',
    "t.json": '{"services": [{"name": "cmd-s"}, {"name": "cmd-t", "id": "cmd-t-1"}]}',
    "other.hcl": 'node_name = "x"\nservice { name = "cmd-s" }\n',
    "none.hcl": 'node_name = "x"\n',
    "empty.hcl": "",
    "s.txt": 'service { name = "cmd-s" }\n',
    "kind.hcl": 'service { name = "cmd-s" kind = "bogus" }\n',
    "camel.hcl": 'service { Name = "cmd-s" EnableTagOverride = true }\n',
    "fraction.hcl": 'service { name = "cmd-s" port = 80.5 }\n',
    "token": "not-a-token",
}
# What differs in exit code, output or silence, and why.
DIFFERENT = {
    "config write a.hcl b.hcl": "ours writes several files",
    "config write a.hcl -cas": "Go's flags end at the first argument, ours may stand anywhere",
    "config read -kind service-defaults -name cmd-a more": "an argument that is passed over would hide a mistake",
    "config list -kind service-defaults more": "the same",
    "intention list more": "the same",
    "config list -token=x -kind service-defaults": "a token on a command line can be read by every user",
    "config list -namespace=default -partition=default -kind service-defaults": "`default` is the one that there is",
    "intention create -file": "no file at all is a mistake",
    "intention create -file row.hcl": "ours reads HCL too",
    "intention create -replace -file row.hcl": "the same",
    "intention create -file l7.json": "ours writes permissions too",
    "services register -port 5 s.hcl": "flags that are passed over would hide a mistake",
    "services register none.hcl": "a file that defines no service is a mistake",
    "services register empty.hcl": "the same",
    "services deregister none.hcl": "the same",
    "services register other.hcl": "ours tells what of a file it does not register",
    "services register s.txt": "ours does not ask for the name to end with .hcl",
    "services register kind.hcl": "an unknown kind of a file is told, not passed over",
    "services register camel.hcl": "ours takes the names of the API too",
    "services register fraction.hcl": "a port is a whole number",
}
"""Lines of a story, each run by both. `=>` begins what the stock text on standard error must hold in ours, too."""
CONFIG = """
config
config bogus
config write
config write nosuch.hcl
config write a.hcl b.hcl
config write a.hcl
config write -cas b.hcl
config write -cas -modify-index=0 b.hcl
config write --cas --modify-index 99 b.hcl
config write -cas=true -modify-index=99 b.hcl
config write -cas=false b.hcl
config write -cas=maybe b.hcl
config write -modify-index=x b.hcl
config write -modify-index=-1 b.hcl
config write -bogus a.hcl
config write wrong.hcl => invalid config key "Protocl"
config write nokind.hcl => Payload does not contain a kind/Kind key at the top level
config write empty.hcl => Payload does not contain a kind/Kind key at the top level
config write a.hcl -cas
config read => Must specify the -kind parameter
config read -kind service-defaults => Must specify the -name parameter
config read -name cmd-a => Must specify the -kind parameter
config read -kind service-defaults -name cmd-a
config read --kind=service-defaults --name=cmd-a
config read -kind=service-defaults -name=CMD-A
config read -kind service-defaults -name cmd-a more
config read -kind=service-defaults -name=cmd-none => Config entry not found for "service-defaults" / "cmd-none"
config read -kind=bogus -name=x => Error reading config entry bogus/x: invalid config entry kind: bogus
config read -kind
config list => Must specify the -kind parameter
config list -kind service-defaults
config list -kind=service-router
config list -kind=bogus => invalid config entry kind: bogus
config list -kind service-defaults -filter 'Name == "cmd-a"'
config list -kind service-defaults -filter nonsense
config list -kind service-defaults more
config list -datacenter=dc1 -stale -kind service-defaults
config list -datacenter=nowhere -kind service-defaults
config list -token=x -kind service-defaults
config list -namespace=default -partition=default -kind service-defaults
config list -namespace=x -kind service-defaults
config list -partition=x -kind service-defaults
config delete => Must specify the -kind or -filename parameter
config delete -kind service-defaults => Must specify the -name parameter
config delete -name cmd-a
config delete -kind service-defaults -name cmd-none
config delete -kind bogus -name x
config delete -kind service-defaults -name cmd-a -cas => Must specify a -modify-index greater than 0 with -cas
config delete -kind service-defaults -name cmd-a -cas -modify-index 1
config delete -kind service-defaults -name cmd-a -modify-index 1 => Cannot specify -modify-index without -cas
config delete -filename b.hcl
config delete -filename nosuch.hcl
config delete -filename wrong.hcl => invalid config key "Protocl"
config delete -filename b.hcl -kind service-defaults
config delete --kind=service-defaults --name=cmd-a
"""
INTENTIONS = """
intention
intention bogus
intention create => Must specify two arguments: source and destination
intention create cmd-w
intention create cmd-w cmd-x cmd-y
intention create -allow -deny cmd-w cmd-x => Only one of -allow or -deny may be specified.
intention create cmd-w cmd-x
intention create cmd-w cmd-x => defines "cmd-w"
intention create -replace cmd-w cmd-x
intention check cmd-w cmd-x
intention create --replace --deny cmd-w cmd-x
intention check cmd-w cmd-x
intention create -deny=false cmd-v cmd-x
intention create -deny=true cmd-u cmd-x
intention create -deny=x cmd-u cmd-x
intention create -meta a=b -meta=c=d cmd-t cmd-x
intention create -meta nope cmd-s cmd-x
intention create -meta =x cmd-s cmd-x
intention create -replace -meta e= cmd-t cmd-x
intention create '*' cmd-x
intention create cmd-w 'cmd*' => wildcard character '*' cannot be used with partial values
intention create default/cmd-m default/cmd-n
intention create other/cmd-m cmd-n
intention create a/b/cmd-m cmd-n
intention create -file
intention create -file nosuch.json
intention create -file row.json
intention create -file row.json => defines "cmd-f1"
intention create -replace -file row.json row2.json
intention create -file row.hcl
intention create -replace -file row.hcl
intention create -file nosource.json
intention create -file empty.hcl
intention create -file l7.json
intention check => command requires exactly two arguments: src and dst
intention check cmd-w
intention check cmd-f1 cmd-f2
intention check cmd-f5 cmd-web
intention check '*' cmd-x
intention check -bogus cmd-w cmd-x
intention match => command requires exactly one argument: src or dst
intention match cmd-w cmd-x
intention match cmd-x
intention match -destination cmd-x
intention match -source cmd-w
intention match -source=false cmd-x
intention match -source -destination cmd-x => only one of -source or -destination may be specified
intention match cmd-none
intention match cmd-web
intention get => command requires exactly 1 or 2 arguments
intention get cmd-w cmd-x
intention get cmd-t cmd-x
intention get cmd-f1 cmd-f2
intention get cmd-none cmd-none => Intention not found with source "cmd-none" and destination "cmd-none"
intention get 11111111-2222-3333-4444-555555555555 => Intention not found with ID "11111111-2222-3333-4444-555555555555"
intention get abc => UUID must be 36 characters
intention list
intention list more
intention delete => command requires exactly 1 or 2 arguments
intention delete a b c
intention delete cmd-w cmd-x
intention delete cmd-w cmd-x
intention delete 11111111-2222-3333-4444-555555555555 => non-existent intention
intention delete abc => UUID must be 36 characters
intention delete -x cmd-w cmd-x
"""
REGISTRATIONS = """
services
services bogus
services register => Service registration requires at least one argument or flags.
services register -id cmd-x => Service registration requires at least one argument or flags.
services register -name cmd-s
services register -name cmd-s s.hcl
services register -port 5 s.hcl
services register s.hcl
services register s.hcl t.json
services register -name cmd-s -id cmd-s-1 -address 192.0.2.1 -port 80 -tag a -tag=b -meta x=1 --meta y=2
services register -name cmd-s -id cmd-s-2 -tagged-address lan=192.0.2.1:80 -tagged-address wan=[::1]:81
services register -name cmd-s -id cmd-s-3 -tagged-address lan=192.0.2.1
services register -name cmd-s -id cmd-s-3 -tagged-address lan
services register -name cmd-s -id cmd-s-3 -meta nope
services register -name cmd-s -id cmd-s-3 -tag a,b
services register -name=cmd-gw -kind=terminating-gateway -port=1
services register -name=cmd-gw -kind=terminating-gateway => Port must be non-zero
services register -name=cmd-u -socket=/tmp/x
services register -name cmd-s -port x
services register -name cmd-s -port
services register nosuch.hcl
services register none.hcl
services register empty.hcl
services register other.hcl
services register s.txt
services register kind.hcl
services register camel.hcl
services register fraction.hcl
services deregister => Service deregistration requires at least one argument or -id.
services deregister -id=cmd-none => Unknown service ID "cmd-none"
services deregister -id=cmd-s-1
services deregister --id cmd-s-2
services deregister -id
services deregister -id cmd-x s.hcl
services deregister s.hcl
services deregister s.hcl => Unknown service ID "cmd-s"
services deregister t.json
services deregister none.hcl
services deregister nosuch.hcl
"""


def masked(text: str) -> str:
    """Return an output without what is new at each run."""
    text = re.sub(r'("(?:Create|Modify)Index": )\d+', r"\1N", text)
    text = re.sub(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UUID", text)
    return re.sub(r"Created At: .*", "Created At: now", text)


def written(consul: ConsulServer) -> Any:
    return [bare(consul.api(f"config/{kind}")) for kind in ("service-defaults", "service-intentions")]


def story(consul: ConsulServer, run: Any, lines: list[str], state: Any) -> list[tuple[Ran, Any]]:
    """Run lines from a clean start; return what each said, and what was there afterwards."""
    forget(consul)
    consul.write(*({"Kind": "service-defaults", "Name": name, "Protocol": "http"} for name in HTTP))
    seen = []
    for line in lines:
        ran = run(consul, line)
        seen.append((ran, state(consul)))
    return seen


@pytest.mark.parametrize("lines", [CONFIG, INTENTIONS, REGISTRATIONS], ids=["config", "intention", "services"])
def test_each_invocation_does_and_says_what_the_stock_command_line_does_and_says(
    lines: str, server: ConsulServer
) -> None:
    for name, text in FILES.items():
        Path(name).write_text(text)
    state = registered if lines is REGISTRATIONS else written
    asked = [line.partition(" => ") for line in lines.strip().splitlines()]
    # Where they are to differ each runs it for itself, and what it left is removed for the others to compare.
    alike = [(words, text) for words, _, text in asked if words not in DIFFERENT]
    left, right = (story(server, run, [words for words, _ in alike], state) for run in BOTH)
    for (words, text), (theirs, their_state), (mine, my_state) in zip(alike, left, right, strict=True):
        assert (mine.code, masked(mine.out)) == (theirs.code, masked(theirs.out)), (words, mine, theirs)
        assert bool(mine.err) == bool(theirs.err), (words, mine, theirs)
        assert text in theirs.err, (words, theirs)
        assert text in mine.err, (words, mine)
        assert my_state == their_state, words
    if any(words in DIFFERENT for words, _, _ in asked):
        ours(server, "config write a.hcl")
    for words in [words for words, _, _ in asked if words in DIFFERENT]:
        theirs, mine = (run(server, words) for run in BOTH)
        assert (mine.code, mine.out, bool(mine.err)) != (theirs.code, theirs.out, bool(theirs.err)), f"{words} is alike"
        assert mine.code == 0 or mine.err


# --- how the agent is reached --------------------------------------------------------------------------------------


@contextlib.contextmanager
def encrypted(server: ConsulServer, authority: Authority, folder: Path) -> Iterator[str]:
    """Put TLS before a server; yield the address. `folder` gets ca.pem."""
    leaf = authority.leaf("consul", Mistakes(dns=("localhost",), ips=("127.0.0.1",)))
    (folder / "ca.pem").write_text(authority.pem)
    (folder / "leaf.pem").write_text(leaf.chain_pem)
    (folder / "key.pem").write_bytes(leaf.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "leaf.pem", folder / "key.pem")

    class Relay(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with urllib.request.urlopen(server.http_addr + self.path) as answer:
                body = answer.read()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Relay) as relay:
        relay.socket = context.wrap_socket(relay.socket, server_side=True)
        thread = threading.Thread(target=relay.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"127.0.0.1:{relay.server_port}"
        finally:
            relay.shutdown()
            thread.join()


LISTING = "config list -kind service-defaults"


def test_an_https_agent_is_reached_with_the_flags_of_the_stock_command_line(
    server: ConsulServer, authority: Authority, stranger: Authority, tmp_path: Path
) -> None:
    Path("stranger.pem").write_text(stranger.pem)
    plain = stock(server, LISTING)
    with encrypted(server, authority, tmp_path) as address:
        good = [f"-http-addr=https://{address} -ca-file=ca.pem", f"--http-addr https://{address} --ca-file ca.pem"]
        for flags in (*good, f"-http-addr=https://{address} -ca-file=ca.pem -tls-server-name=localhost"):
            assert stock(server, f"{LISTING} {flags}") == ours(server, f"{LISTING} {flags}") == plain
        for flags in ("-ca-file=stranger.pem", "-ca-file=ca.pem -tls-server-name=other", "", "-ca-file=nosuch.pem"):
            for run in BOTH:
                ran = run(server, f"{LISTING} -http-addr=https://{address} {flags}")
                assert (ran.code, ran.out, bool(ran.err)) == (1, "", True), (run, flags, ran)


@pytest.mark.parametrize("scheme", ["", "http://"])
def test_an_address_is_taken_with_and_without_its_scheme(scheme: str, server: ConsulServer) -> None:
    words = f"{LISTING} -http-addr={scheme}127.0.0.1:{server.http_port}"
    elsewhere = replace(server, http_port=1)
    assert stock(elsewhere, words) == ours(elsewhere, words) == stock(server, LISTING)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("config list -kind mesh", 1),
        ("config read -kind mesh -name mesh", 1),
        ("config delete -kind mesh -name mesh", 1),
        ("config write a.hcl", 1),
        ("intention check a b", 2),
        ("intention create a b", 1),
        ("intention match b", 1),
        ("intention list", 1),
        ("intention get a b", 1),
        ("intention delete a b", 1),
        ("services register -name cmd-s", 1),
        ("services deregister -id cmd-s", 1),
    ],
)
def test_without_a_server_each_word_ends_as_the_stock_one(words: str, code: int) -> None:
    Path("a.hcl").write_text(FILES["a.hcl"])
    nowhere = ConsulServer(Program("nothing", [], Path()), free_ports(1)[0], 0)
    for run in BOTH:
        ran = run(nowhere, words)
        assert (ran.code, ran.out) == (code, "")
        assert "refused" in ran.err.lower() or "connect" in ran.err.lower()


@pytest.mark.parametrize(
    "words",
    [
        "config list -kind service-defaults",
        "config read -kind service-defaults -name cmd-a",
        "config write a.hcl",
        "config delete -kind service-defaults -name cmd-a",
        "intention check cmd-a cmd-b",
        "intention create cmd-a cmd-b",
        "intention create -replace cmd-a cmd-b",
        "intention get cmd-a cmd-b",
        "intention match cmd-b",
        "intention list",
        "intention delete cmd-a cmd-b",
        "services register -name cmd-s",
        "services deregister -id cmd-s",
    ],
)
def test_a_wrong_token_is_refused_as_the_stock_command_line_tells_it(
    words: str, consul_with_acls: ConsulServer
) -> None:
    Path("a.hcl").write_text(FILES["a.hcl"])
    Path("token").write_text("11111111-0000-0000-0000-000000000000")
    word, action, rest = words.split(" ", 2) if words.count(" ") > 1 else (*words.split(), "")
    anonymous = replace(consul_with_acls, token="")
    for flag in ("-token-file=token", ""):
        left, right = (run(anonymous, f"{word} {action} {flag} {rest}") for run in BOTH)
        assert (left.code, left.out, bool(left.err)) == (right.code, right.out, bool(right.err))
        assert ("403" in left.err) is ("403" in right.err)


def test_a_token_of_a_file_is_used_and_never_shown(consul_with_acls: ConsulServer) -> None:
    Path("token").write_text(f"{consul_with_acls.token}\n")
    Path("a.hcl").write_text(FILES["a.hcl"])
    anonymous = replace(consul_with_acls, token="")
    for run in BOTH:
        assert (
            run(anonymous, "config write -token-file=token a.hcl").out
            == "Config entry written: service-defaults/cmd-a\n"
        )
        assert run(anonymous, "config delete -token-file token -filename a.hcl").code == 0
    refused = ours(anonymous, f"config list -kind mesh -token={consul_with_acls.token}")
    assert refused.code == 1
    assert consul_with_acls.token not in refused.err


@pytest.mark.parametrize(
    "flags", ["-token-file=nosuch", "-ca-file=nosuch", "-http-addr=ftp://x", "-client-cert=nosuch", "-http-addr=:::"]
)
def test_a_flag_that_names_nothing_is_refused_by_both(flags: str, server: ConsulServer) -> None:
    for run in BOTH:
        ran = run(server, f"config list {flags} -kind mesh")
        assert (ran.code, ran.out, bool(ran.err)) == (1, "", True)


def test_a_warning_is_no_part_of_the_output(consul_with_acls: ConsulServer) -> None:
    Path("token").write_text("")
    ran = ours(replace(consul_with_acls, token=""), "config list -token-file=token -kind mesh")
    assert (ran.code, ran.out) == (0, "")
    assert "token_file_failing" in ran.err


# --- as a process --------------------------------------------------------------------------------------------------


def lictor(server: ConsulServer, words: str, stdin: str = "") -> Ran:
    done = subprocess.run(
        [sys.executable, "-m", "lictor", *shlex.split(words)],
        capture_output=True,
        input=stdin.encode(),
        env={**os.environ, **server.environment, "PYTHONPATH": str(REPOSITORY), "PYTHONASYNCIODEBUG": ""},
        check=False,
        timeout=60,
    )
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


def test_a_process_writes_its_answers_apart_from_its_errors_and_ends_with_its_code(server: ConsulServer) -> None:
    text = FILES["b.hcl"]
    assert lictor(server, "config write -", text) == stock(server, "config write -", text)
    assert lictor(server, "config delete -kind=service-defaults -name=cmd-b") == Ran(
        0, "Config entry deleted: service-defaults/cmd-b\n", ""
    )
    wrong = lictor(server, "config write -", FILES["wrong.hcl"])
    assert (wrong.code, wrong.out) == (1, "")
    assert "the standard input:3: " in wrong.err
    assert lictor(server, "intention check -bogus").code == 2
    assert lictor(server, "intention frobnicate").code == 1
    assert lictor(server, "frobnicate").code == 2


def test_bash_completes_the_names_of_entries_by_asking_consul(server: ConsulServer) -> None:
    script = "source <(lictor completion bash); COMP_WORDS=(lictor config read -kind = service-defaults -name cmd-w)"
    script += '; COMP_CWORD=7; _lictor; printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, **server.environment, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        check=False,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("cmd-web\n", "")
