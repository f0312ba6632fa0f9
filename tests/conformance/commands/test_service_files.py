# ruff: noqa: E501 - tables of files, as one types them
"""Files of services: registered as by the stock command line; mistakes are named by line."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.command_lines import BOTH, ours, registered
from harness.servers import ConsulServer

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
