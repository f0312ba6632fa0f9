"""Where the embedded Consul differs on purpose: one table, its rows asked of both servers; the manual tells the same.

Everything that is not here is equal: dialogues, blocking queries and checks have no exceptions of their own.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.servers import MANAGEMENT_TOKEN, REPOSITORY, ConsulServer, DevServers, dev_server

MANUAL = REPOSITORY / "docs" / "dev-server.md"
HEADING = "## Differences from Consul"
NOT_DONE = "the dev server of Lictor does not do this"


@dataclass(frozen=True, slots=True)
class Said:
    """An answer to the last request of a row."""

    status: int
    text: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Difference:
    """Requests (method, path, body) of which the last is judged, and what each of the two says to it."""

    requests: tuple[tuple[str, str, object], ...]
    consul: Callable[[Said], bool]
    ours: Callable[[Said], bool]
    acl: bool = False


def _says(status: int, text: str = "") -> Callable[[Said], bool]:
    return lambda said: said.status == status and text in said.text


_INTENTION = ("PUT", "connect/intentions/exact?source=a&destination=df", {"Action": "allow"})
_DEEP = "(" * 33 + "Service.ID==x" + ")" * 33
DIFFERENCES: Mapping[str, Difference] = {
    "Other endpoints": Difference(
        (("GET", "event/list", None),), _says(200), _says(404, f"GET /v1/event/list: {NOT_DONE}")
    ),
    "A missing or doubled slash": Difference(
        (("GET", "discovery-chain", None),), lambda said: said.status in {301, 307}, _says(404, "not a recognized")
    ),
    "JSON of a wrong type": Difference(
        (("PUT", "agent/service/register", []),),
        _says(400, "Request decode failed: json: cannot unmarshal array into Go value of type "),
        _says(400, "Request decode failed: json: cannot unmarshal array into Go value of type "),
    ),
    "agent/self": Difference(
        (("GET", "agent/self", None),),
        lambda said: len(json.loads(said.text)["DebugConfig"]) > 100,
        lambda said: len(json.loads(said.text)["DebugConfig"]) < 10,
    ),
    "agent/check/register: kinds of checks": Difference(
        (
            ("PUT", "agent/check/register", {"Name": "df-udp", "UDP": "127.0.0.1:1", "Interval": "30s"}),
            ("GET", "agent/checks", None),
        ),
        lambda said: "Lictor" not in json.loads(said.text)["df-udp"]["Output"],
        lambda said: json.loads(said.text)["df-udp"]["Output"] == "the dev server of Lictor does not run udp checks",
    ),
    "connect/intentions/exact?index=": Difference(
        (_INTENTION, ("GET", "connect/intentions/exact?source=a&destination=df&index=999999&wait=1s", None)),
        lambda said: said.seconds >= 0.9,
        lambda said: said.seconds < 0.9,
    ),
    "agent/connect/ca/leaf with ACLs": Difference(
        (
            ("GET", f"agent/connect/ca/leaf/df?token={MANAGEMENT_TOKEN}", None),
            ("GET", "agent/connect/ca/leaf/df", None),
        ),
        _says(200, "PrivateKeyPEM"),
        _says(403, "Permission denied"),
        acl=True,
    ),
    "acl/policy global-management": Difference(
        (("GET", f"acl/policy/name/global-management?token={MANAGEMENT_TOKEN}", None),),
        lambda said: "write" in json.loads(said.text)["Rules"],
        lambda said: json.loads(said.text)["Rules"] == "",
        acl=True,
    ),
}
# What takes too long to show, or what only some moments show; the manual tells these too.
UNASKED = frozenset(
    {
        "?filter= deeper than 32 levels",
        "?near=",
        "catalog/connect?index=",
        "consul-virtual on the agent",
        "DeregisterCriticalServiceAfter",
        "kv?acquire= after a session's end",
        "connect/ca/configuration: another root",
        "acl/policy: rules that do not parse",
        "The server's own row",
        "Aliases of what the agent forgets",
        "agent/service/deregister with an alias of the node",
        "agent/service/register: script and OS service checks of a service that is there",
        "catalog/register with Connect.SidecarService",
        "Registrations with null in the place of a structure",
        "discovery-chain AutoVirtualIPs",
        "catalog/services: tags",
        "catalog/gateway-services: ServiceKind, and `*` beside a name",
        "First run of a TCP or HTTP check",
        "Output of a check whose status stays",
        "A check ID that two services share",
    }
)


def _ask(server: ConsulServer, difference: Difference) -> Said:
    said = Said(0, "", 0)
    for method, path, body in difference.requests:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{server.http_addr}/v1/{path}", data=data, method=method)
        begun = time.monotonic()
        try:
            with urllib.request.build_opener(_Straight).open(request, timeout=20) as answer:
                status, text = answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read().decode()
        said = Said(status, text, time.monotonic() - begun)
        time.sleep(0.2)
    return said


class _Straight(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def _judge(server: ConsulServer, difference: Difference) -> None:
    said = _ask(server, difference)
    wanted = difference.ours if isinstance(server, DevServers) else difference.consul
    assert wanted(said), said


@pytest.mark.parametrize("name", [name for name, row in DIFFERENCES.items() if not row.acl])
def test_they_differ_as_the_table_says(consul: ConsulServer, name: str) -> None:
    try:
        _judge(consul, DIFFERENCES[name])
    finally:
        for path in ("agent/check/deregister/df-udp", "agent/service/deregister/df"):
            _ask(consul, Difference((("PUT", path, None),), _says(200), _says(200)))


@pytest.mark.parametrize("name", [name for name, row in DIFFERENCES.items() if row.acl])
def test_they_differ_with_acls_as_the_table_says(consul_with_acls: ConsulServer, name: str) -> None:
    _judge(consul_with_acls, DIFFERENCES[name])


def test_a_filter_that_nests_too_deep_is_refused_at_once() -> None:
    """Asked of the embedded one alone: the real one thinks for hours."""
    with dev_server() as dev:
        said = _ask(dev, Difference((("GET", f"health/service/df?filter={_DEEP}", None),), _says(0), _says(0)))
    assert (said.status, said.text.partition(": ")[2]) == (500, "filter nests deeper than 32 levels")
    assert said.seconds < 1


def test_the_manual_has_these_rows_and_no_others() -> None:
    section = Path(MANUAL).read_text().partition(HEADING)[2].partition("\n## ")[0]
    rows = [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("|")]
    assert sorted(rows[2:]) == sorted({*DIFFERENCES, *UNASKED})
