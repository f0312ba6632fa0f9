"""Dialogues with a server in plain text, held with two servers at once, their answers compared.

    # registers a service                      the title of a dialogue
    PUT agent/service/register {"Name": "a"}   a step: method, path under /v1, body
    GET agent/service/a
    anonymous GET catalog/nodes                the token: management if none is named; `ID=` names what was answered
    policy= PUT acl/policy {"Name": "p"}       keeps the answer's ID for later steps, where it is written <policy>
    web=auth.client_token,id=auth.accessor PUT auth/approle/login {}    keeps what stands there in the answer
    web GET auth/token/lookup-self             and a kept value may be the token of a later step
    [X-Vault-Wrap-TTL: 60s] GET sys/mounts     a header, or several between `;`
    wait 1.5                                   seconds before the next step

What differs by nature is masked: indexes, hashes, identifiers, times, certificates, ports of the server itself.
How one speaks with a kind of server is a `Manner`: CONSUL here, VAULT in `harness/vault_dialogues.py`.
"""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

METHODS = "GET|PUT|POST|DELETE|OPTIONS|HEAD|PATCH|LIST|SCAN|TRACE"
PATIENCE_SECONDS = 30.0  # a sync of an agent that failed is tried again after 15 s
HEADERS = ("Content-Type", "Allow", "X-Consul-Effective-Consistency", "X-Consul-Reason", "X-Consul-Knownleader")
PRESENT = ("X-Consul-Index", "X-Cache", "X-Consul-Contenthash")
MASKED_KEYS = frozenset(
    {"CreateIndex", "ModifyIndex", "Hash", "ContentHash", "CreateTime", "LockIndex", "SerialNumber"}
)
_STEP = re.compile(
    r"(?:(?P<keep>\w+=[\w./-]*(?:,\w+=[\w./-]*)*) )?(?:(?P<token>\w+) )?(?:\[(?P<headers>[^\]]+)\] )?"
    rf"(?P<method>{METHODS}) (?P<path>\S+)(?: (?P<body>.+))?"
)
_WAIT = re.compile(r"wait (\d+(?:\.\d+)?)")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_PEM = re.compile(r"-----BEGIN [A-Z ]+-----.*?-----END [A-Z ]+-----\n?", re.DOTALL)
_CIRCLE = re.compile(r"\[((?:\S+ -> )+\S+)\]")
_PAIRS = re.compile(r"\b(?:[0-9a-f]{2}:){3,}[0-9a-f]{2}\b")


@dataclass(frozen=True, slots=True)
class Step:
    """One request. `keep`: `name=place` words; `headers`: `Name: value` words; `wait`: seconds before it."""

    dialogue: str
    number: int
    text: str
    method: str
    path: str
    body: str = ""
    token: str = "management"
    keep: str = ""
    headers: str = ""
    wait: float = 0.0

    def __str__(self) -> str:
        """Return a name for a test."""
        return f"{self.dialogue} {self.number}: {self.method} {self.path[:60]}"


@dataclass(frozen=True, slots=True)
class Said:
    """An answer, masked."""

    status: int
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True, slots=True)
class Manner:
    """How one speaks with a kind of server.

    `headers`: compared. `present`: compared for being there. `masked`: an answer's body, and what was kept by name, to
    what is compared. `kept`: the place of what a bare `name=` keeps. `sent`: headers of every request. `patience`: for
    how many seconds a read whose answers differ is asked again.
    """

    token_header: str
    headers: tuple[str, ...]
    present: tuple[str, ...]
    masked: Callable[[bytes, Mapping[str, str]], Any]
    kept: Callable[[Any], str]
    sent: Mapping[str, str] = field(default_factory=dict)
    patience: float = PATIENCE_SECONDS


@dataclass(slots=True)
class Speaker:
    """One of the two servers: its address, its tokens by name, and what was kept of its answers."""

    address: str
    tokens: Mapping[str, str]
    manner: Manner | None = None  # None is Consul's
    kept: dict[str, str] = field(default_factory=dict)

    def ask(self, step: Step) -> Said:
        """Return the masked answer to a step."""
        manner = self.manner or CONSUL
        token = self.tokens.get(step.token) or self.kept.get(step.token, "")
        if step.token != "anonymous" and not token:
            message = f"{step}: no token is called {step.token}"
            raise ValueError(message)
        headers = {**manner.sent, **({manner.token_header: token} if token and step.token != "anonymous" else {})}
        for word in filter(None, step.headers.split(";")):
            name, _, value = word.partition(":")
            headers[name.strip()] = self._filled(value.strip())
        data = self._filled(step.body, lambda value: json.dumps(value)[1:-1]).encode() if step.body else None
        url = f"{self.address}/v1/{self._filled(step.path)}"
        request = urllib.request.Request(url, data=data, method=step.method, headers=headers)
        try:
            with urllib.request.build_opener(_Straight).open(request, timeout=20) as answer:
                status, received, raw = answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            status, received, raw = error.code, error.headers, error.read()
        if step.keep:
            self._keep(step, json.loads(raw or b"null"))
        return Said(status, _headers(manner, received), without_chance(step.path, manner.masked(raw, self.kept)))

    def _filled(self, text: str, form: Callable[[str], str] = str) -> str:
        for name, value in self.kept.items():
            text = text.replace(f"<{name}>", form(value))
        return text

    def _keep(self, step: Step, found: Any) -> None:
        for word in step.keep.split(","):
            name, _, place = word.partition("=")
            value = _at(found, place) if place else (self.manner or CONSUL).kept(found)
            # Nothing there is a difference of this step; later ones go on with a word that nobody knows.
            self.kept[name] = f"no-{name}" if value is None else str(value)


def _at(value: Any, place: str) -> Any:
    """Return what stands at a place such as `data.keys.0`; None where there is nothing."""
    for word in place.split("."):
        if isinstance(value, list) and word.isdigit() and int(word) < len(value):
            value = value[int(word)]
        elif isinstance(value, dict):
            value = value.get(word)
        else:
            return None
    return value


class _Straight(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def _headers(manner: Manner, received: Any) -> dict[str, str]:
    found = {name: received[name] for name in manner.headers if received[name]}
    found |= {name: "there" for name in manner.present if received[name]}
    return found


def without_chance(path: str, answer: Any) -> Any:
    """Return an answer of Consul without chance: tags in order; of an agent no address that it hears of later."""
    if path.startswith("catalog/services") and isinstance(answer, dict):
        return {name: sorted(tags) for name, tags in answer.items()}
    return _without_virtual(answer) if path.startswith("agent/") else answer


def _without_virtual(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_virtual(one) for one in value]
    if not isinstance(value, dict):
        return value
    told = {key: _without_virtual(one) for key, one in value.items() if not key.startswith("consul-virtual")}
    return {key: one for key, one in told.items() if key != "TaggedAddresses" or one}


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


CONSUL = Manner(
    "X-Consul-Token",
    HEADERS,
    PRESENT,
    lambda raw, _: masked(raw.decode("utf-8", "replace")),
    lambda found: str(found.get("SecretID") or found.get("ID") or found.get("ModifyIndex")),
)


def read_dialogues(file: Path) -> list[Step]:
    """Return the steps of a file, in order. Raise ValueError for a line that is none."""
    steps: list[Step] = []
    title, number, wait = file.stem, 0, 0.0
    for line in map(str.strip, file.read_text().splitlines()):
        if line.startswith("# "):
            title, number = f"{file.stem}: {line[2:]}", 0
        elif waiting := _WAIT.fullmatch(line):
            wait = float(waiting[1])
        elif line:
            number += 1
            steps.append(_step(file, title, number, line, wait))
            wait = 0.0
    return steps


def _step(file: Path, title: str, number: int, line: str, wait: float) -> Step:
    found = _STEP.fullmatch(line)
    if found is None:
        message = f"{file.name}: {line!r} is no step"
        raise ValueError(message)
    given = {name: value or "" for name, value in found.groupdict().items()}
    return Step(
        title,
        number,
        line,
        given["method"],
        given["path"],
        given["body"],
        given["token"] or "management",
        given["keep"],
        given["headers"],
        wait,
    )


def hold(steps: list[Step], first: Speaker, second: Speaker) -> Iterator[tuple[Step, Said, Said]]:
    """Ask both the same, step by step. A read may be asked again: a real agent tells its catalog a moment later."""
    for step in steps:
        time.sleep(step.wait)
        answers = first.ask(step), second.ask(step)
        deadline = time.monotonic() + (first.manner or CONSUL).patience
        while answers[0] != answers[1] and step.method == "GET" and time.monotonic() < deadline:
            time.sleep(0.1)
            answers = first.ask(step), second.ask(step)
        yield step, *answers
