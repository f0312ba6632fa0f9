"""Dialogues with a server in plain text, held with two servers at once, their answers compared.

    # registers a service                      the title of a dialogue
    PUT agent/service/register {"Name": "a"}   a step: method, path under /v1, body
    GET agent/service/a
    anonymous GET catalog/nodes                the token: management if none is named; `ID=` names what was answered
    policy= PUT acl/policy {"Name": "p"}       keeps the answer's ID for later steps, where it is written <policy>

What differs by nature is masked: indexes, hashes, identifiers, times, certificates, ports of the server itself.
"""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

METHODS = "GET|PUT|POST|DELETE|OPTIONS|HEAD|PATCH"
PATIENCE_SECONDS = 3.0
HEADERS = ("Content-Type", "Allow", "X-Consul-Effective-Consistency", "X-Consul-Reason", "X-Consul-Knownleader")
PRESENT = ("X-Consul-Index", "X-Cache", "X-Consul-Contenthash")
MASKED_KEYS = frozenset(
    {"CreateIndex", "ModifyIndex", "Hash", "ContentHash", "CreateTime", "LockIndex", "SerialNumber"}
)
_STEP = re.compile(rf"(?:(?P<keep>\w+)= )?(?:(?P<token>\w+) )?(?P<method>{METHODS}) (?P<path>\S+)(?: (?P<body>.+))?")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_PEM = re.compile(r"-----BEGIN [A-Z ]+-----.*?-----END [A-Z ]+-----\n?", re.DOTALL)
_CIRCLE = re.compile(r"\[((?:\S+ -> )+\S+)\]")
_PAIRS = re.compile(r"\b(?:[0-9a-f]{2}:){3,}[0-9a-f]{2}\b")


@dataclass(frozen=True, slots=True)
class Step:
    """One request."""

    dialogue: str
    number: int
    text: str
    method: str
    path: str
    body: str = ""
    token: str = "management"
    keep: str = ""

    def __str__(self) -> str:
        """Return a name for a test."""
        return f"{self.dialogue} {self.number}: {self.method} {self.path[:60]}"


@dataclass(frozen=True, slots=True)
class Said:
    """An answer, masked."""

    status: int
    headers: Mapping[str, str]
    body: Any


@dataclass(slots=True)
class Speaker:
    """One of the two servers: its address, its tokens by name, and what was kept of its answers."""

    address: str
    tokens: Mapping[str, str]
    token_header: str = "X-Consul-Token"
    kept: dict[str, str] = field(default_factory=dict)

    def ask(self, step: Step) -> Said:
        """Return the masked answer to a step."""
        token = self.tokens.get(step.token) or self.kept.get(step.token, "")
        if step.token != "anonymous" and not token:
            message = f"{step}: no token is called {step.token}"
            raise ValueError(message)
        headers = {self.token_header: token} if token and step.token != "anonymous" else {}
        data = self._filled(step.body).encode() if step.body else None
        url = f"{self.address}/v1/{self._filled(step.path)}"
        request = urllib.request.Request(url, data=data, method=step.method, headers=headers)
        try:
            with urllib.request.build_opener(_Straight).open(request, timeout=20) as answer:
                status, received, raw = answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            status, received, raw = error.code, error.headers, error.read()
        text = raw.decode("utf-8", "replace")
        if step.keep:
            self._keep(step.keep, text)
        return Said(status, _headers(received), masked(text))

    def _filled(self, text: str) -> str:
        for name, value in self.kept.items():
            text = text.replace(f"<{name}>", value)
        return text

    def _keep(self, name: str, text: str) -> None:
        found = json.loads(text)
        self.kept[name] = str(found.get("SecretID") or found.get("ID") or found.get("ModifyIndex"))


class _Straight(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def _headers(received: Any) -> dict[str, str]:
    found = {name: received[name] for name in HEADERS if received[name]}
    found |= {name: "there" for name in PRESENT if received[name]}
    if "Content-Type" in found:
        found["Content-Type"] = found["Content-Type"].partition(";")[0]
    return found


def masked(text: str) -> Any:
    """Return an answer without what differs from server to server."""
    try:
        return _masked(json.loads(text))
    except ValueError:
        return mask_text(text)


def mask_text(text: str) -> str:
    """Return a text without identifiers, times and certificates."""
    for pattern, name in ((_PEM, "<pem>"), (_UUID, "<uuid>"), (_TIME, "<time>"), (_PAIRS, "<pairs>")):
        text = pattern.sub(name, text)
    text = re.sub(r"reset index: \d+|^127\.0\.0\.1:\d+$", "<n>", text)
    text = re.sub(r'discovery chain "[\w-]+" uses inconsistent', 'discovery chain "<one>" uses inconsistent', text)
    return _CIRCLE.sub(lambda found: f"[{_rotated(found[1])}]", text)


def _rotated(circle: str) -> str:
    """Return a circle from the first of its members by name: a server may show it from any."""
    members = circle.split(" -> ")[:-1]
    at = members.index(min(members))
    return " -> ".join((*members[at:], *members[:at]))


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {mask_text(key): "<n>" if key in MASKED_KEYS else _masked(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_masked(one) for one in value]
    return mask_text(value) if isinstance(value, str) else value


def read_dialogues(file: Path) -> list[Step]:
    """Return the steps of a file, in order. Raise ValueError for a line that is none."""
    steps: list[Step] = []
    title, number = file.stem, 0
    for line in file.read_text().splitlines():
        if line.startswith("# "):
            title, number = f"{file.stem}: {line[2:]}", 0
        elif line.strip():
            found = _STEP.fullmatch(line.strip())
            if found is None:
                message = f"{file.name}: {line!r} is no step"
                raise ValueError(message)
            number += 1
            given = found.groupdict()
            steps.append(
                Step(
                    title,
                    number,
                    line,
                    given["method"],
                    given["path"],
                    given["body"] or "",
                    given["token"] or "management",
                    given["keep"] or "",
                )
            )
    return steps


def hold(steps: list[Step], first: Speaker, second: Speaker) -> Iterator[tuple[Step, Said, Said]]:
    """Ask both the same, step by step. A read may be asked again: a real agent tells its catalog a moment later."""
    for step in steps:
        answers = first.ask(step), second.ask(step)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while answers[0] != answers[1] and step.method == "GET" and time.monotonic() < deadline:
            time.sleep(0.1)
            answers = first.ask(step), second.ask(step)
        yield step, *answers
