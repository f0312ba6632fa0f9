"""Two servers that are told the same: a real Consul and ours. Their answers are compared; what must differ is masked.

A write is answered once by each; a read may be asked again for a while, for a real agent tells its catalog a moment
later. `{id3}` in a path stands for the fourth identifier that a server gave away, whatever it was.
"""

from __future__ import annotations

import http.client
import json
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from harness.dialogues import mask_text, masked, without_chance
from harness.servers import ConsulServer

PATIENCE_SECONDS = 30.0  # a sync of an agent that failed is tried again after 15 s
TIMEOUT_SECONDS = 20.0
OFTEN = 40  # times to ask again where Consul reports one of several mistakes at random
NOBODY = "00000000-1111-2222-3333-444444444444"
Answer = tuple[int, Any]
# Texts of Go's own library, which change with its release: only the beginning is ours to match.
_FOREIGN = re.compile(r"(json: cannot unmarshal|invalid character|time: \w+ \w+|parsing time) .*", re.DOTALL)
# Whether an address outlives a sidecar depends on which of a service and its sidecar Consul's agent forgets first.
_RANDOM = frozenset({"AutoVirtualIPs", "ManualVirtualIPs"})
_VIRTUAL = re.compile(r"240\.\d+\.\d+\.\d+")
_KEPT_OUTPUTS = frozenset({"ttl", "maintenance"})  # other checks say what their probe saw, when it came to it


@dataclass(frozen=True, slots=True)
class Act:
    """One request."""

    method: str
    path: str
    body: Any = None

    def __str__(self) -> str:
        """Return it as one would type it."""
        said = "" if self.body is None else f" {self.body if isinstance(self.body, str) else json.dumps(self.body)}"
        return f"{self.method} {self.path}{said}"


@dataclass(slots=True)
class Twin:
    """One of the two: its connection, and the identifiers that it gave away."""

    server: ConsulServer
    given: list[str] = field(default_factory=list)
    _connection: http.client.HTTPConnection | None = None

    def ask(self, act: Act) -> Answer:
        """Return the masked answer. No answer at all is the status 0."""
        path = re.sub(r"\{id(\d+)\}", lambda found: self._given(int(found[1])), act.path)
        data = act.body if act.body is None or isinstance(act.body, str) else json.dumps(act.body)
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self.server.http_port, timeout=TIMEOUT_SECONDS)
        try:
            self._connection.request(act.method, f"/v1/{path}", body=data)
            answer = self._connection.getresponse()
            text = answer.read().decode()
        except (http.client.HTTPException, OSError) as error:
            self.close()
            if isinstance(error, TimeoutError):
                message = f"no answer to {act} within {TIMEOUT_SECONDS:g} s"
                raise AssertionError(message) from error  # noqa: TRY004 - a test has failed
            return 0, "no answer"
        if act.method == "POST" and act.path == "connect/intentions" and answer.status == 200:
            self.given.append(json.loads(text)["ID"])
        return answer.status, quiet(masked(text))

    def _given(self, number: int) -> str:
        return self.given[number] if number < len(self.given) else NOBODY

    def close(self) -> None:
        """End the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def quiet(value: Any) -> Any:
    """Return an answer without what probes saw, addresses that a server chooses, and texts of Go's library."""
    if isinstance(value, str):
        return _VIRTUAL.sub("240.<n>", _FOREIGN.sub(r"\1 ...", value))
    if isinstance(value, list):
        return [quiet(one) for one in value]
    if not isinstance(value, dict):
        return value
    told = {key: "<n>" if key in _RANDOM else quiet(one) for key, one in value.items()}
    if "GatewayKind" in told:
        told.pop("ServiceKind", None)  # there since the agent's last word of the service, which may come again any time
    if told.get("ID") == told.get("Service") == "consul":
        return {"ID": "consul"}  # the server itself, with ports and versions of its own
    if "CheckID" in told and told.get("Type") not in _KEPT_OUTPUTS and told["CheckID"] != "serfHealth":
        told["Output"] = "<seen>"
    if str(told.get("Output")).startswith("dial tcp"):  # of the check that had this ID before
        told["Output"] = ""
    if "AggregatedStatus" in told and told.get("Checks"):  # in no order
        told["Checks"] = sorted(told["Checks"], key=lambda check: str(check["CheckID"]))
    return told


class Twins:
    """Both, and what is compared of them."""

    def __init__(self, real: ConsulServer, ours: ConsulServer) -> None:
        self._both = Twin(real), Twin(ours)

    def close(self) -> None:
        """End the connections; they are made again when they are needed."""
        for twin in self._both:
            twin.close()

    def tell(self, act: Act) -> int:
        """Let both do something; fail where their answers differ. Return the status."""
        real, ours = (twin.ask(act) for twin in self._both)
        for _ in range(OFTEN):
            if _said(real) == _said(ours) or real[0] in {0, 200} or ours[0] in {0, 200}:
                break
            real = self._both[0].ask(act)
        assert _said(real) == _said(ours), f"\n{act}\nConsul {real}\nours   {ours}"
        return real[0]

    def compare(self, path: str, act: Act | None = None) -> Any:
        """Read from both until they agree; fail when they do not within some seconds. Return what they agree on."""
        wanted = act or Act("GET", path)
        deadline, pause = time.monotonic() + PATIENCE_SECONDS, 0.001
        while True:
            answers = (twin.ask(wanted) for twin in self._both)
            real, ours = ((status, without_chance(path, body)) for status, body in answers)
            if real == ours:
                return real[1]
            if time.monotonic() > deadline:
                break
            time.sleep(pause)
            pause = min(0.2, pause * 2)
        message = f"\n{wanted}\n{_difference(real, ours)}"
        raise AssertionError(message)

    def settle(self) -> None:
        """Wait until the catalog of the real one knows what its agent does."""
        self.compare("catalog/node-services/n1")
        self.compare("health/node/n1")

    def reset(self) -> None:
        """Make both as they were in the beginning: nothing registered, nothing written."""
        for kind in ("service-intentions", "ingress-gateway", "terminating-gateway", "service-router"):
            self._delete(kind)
        for kind in ("service-splitter", "service-resolver", "service-defaults", "proxy-defaults", "mesh"):
            self._delete(kind)
        self.forget("agent/services", "agent/service/deregister/{}")
        self.forget("agent/checks", "agent/check/deregister/{}")
        for node in self._told("catalog/nodes"):
            if node["Node"] != "n1":
                self._every(Act("PUT", "catalog/deregister", {"Node": node["Node"]}))
        for twin in self._both:
            twin.given.clear()
        self.compare("catalog/services")
        self.compare("health/state/any")

    def _delete(self, kind: str) -> None:
        for entry in self._told(f"config/{kind}"):
            self._every(Act("DELETE", f"config/{kind}/{quote(entry.get('Name') or 'mesh', safe='')}"))

    def forget(self, listing: str, path: str) -> None:
        """Deregister everything of a listing of the agent."""
        for name in self._told(listing):
            self._every(Act("PUT", path.format(quote(name, safe=""))))

    def _told(self, path: str) -> Any:
        """Return a listing as the real one has it, and of ours what only it has."""
        real, ours = (twin.ask(Act("GET", path))[1] for twin in self._both)
        if isinstance(real, dict):
            return sorted({*real, *ours})
        return [*real, *(row for row in ours if row not in real)]

    def _every(self, act: Act) -> None:
        for twin in self._both:
            twin.ask(act)


def _said(answer: Answer) -> Answer:
    """Return an answer whose lines are in order: several mistakes are listed at random."""
    status, told = answer
    return (status, sorted(told.split("\n"))) if isinstance(told, str) else answer


def _difference(real: Answer, ours: Answer) -> str:
    """Return where two answers differ, or both when they are of another kind."""
    found = list(differences(real[1], ours[1])) if real[0] == ours[0] else []
    lines = [f"{at}: Consul {one!r}, ours {other!r}" for at, one, other in found]
    return "\n".join(lines) or f"Consul {real}\nours   {ours}"


def differences(real: Any, ours: Any, at: str = "") -> Iterable[tuple[str, Any, Any]]:
    """Yield every place where two answers differ, with both values."""
    if isinstance(real, dict) and isinstance(ours, dict):
        for key in sorted({*real, *ours}):
            yield from differences(real.get(key, "(absent)"), ours.get(key, "(absent)"), f"{at}.{key}")
    elif isinstance(real, list) and isinstance(ours, list) and len(real) == len(ours):
        for number, (one, other) in enumerate(zip(real, ours, strict=True)):
            yield from differences(one, other, f"{at}[{number}]")
    elif real != ours:
        yield at, real, ours


__all__ = ["Act", "Twin", "Twins", "differences", "mask_text", "quiet"]
