"""The operator's words and the stock command line: both run against one server, and what they leave in it."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from harness.servers import ConsulServer, consul_program
from lictor.cli import main

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


def registered(consul: ConsulServer) -> Any:
    """Return the services and checks of these tests."""
    mine = [name for name in consul.api("agent/services") if name.startswith("cmd-")]
    checks = {key: check for key, check in consul.api("agent/checks").items() if check["ServiceID"].startswith("cmd-")}
    for check in checks.values():
        check.pop("Output")
        check.pop("Status")
    return bare([{name: consul.api(f"agent/service/{name}") for name in mine}, checks])


FILES = {
    "a.hcl": 'Kind="service-defaults"\nName="cmd-a"\nProtocol="http"\n',
    "b.hcl": 'Kind="service-defaults"\nName="cmd-b"\nProtocol="tcp"\n',
    "wrong.hcl": 'Kind="service-defaults"\nName="cmd-a"\nProtocl="http"\n',
    "nokind.hcl": 'Name="cmd-a"\n',
    "row.json": '{"SourceName": "cmd-f1", "DestinationName": "cmd-f2", "Action": "deny", "Description": "d"}',
    "row2.json": '{"SourceName": "cmd-f3", "DestinationName": "cmd-f2", "Action": "allow"}',
    "row.hcl": 'SourceName = "cmd-f4"\nDestinationName = "cmd-f2"\nAction = "allow"\n',
    "nosource.json": '{"DestinationName": "cmd-f2", "Action": "deny"}',
    "l7.json": '{"SourceName": "cmd-f5", "DestinationName": "cmd-web", '
    '"Permissions": [{"Action": "allow", "HTTP": {"PathPrefix": "/"}}]}',
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
