"""What comes of a request through a mesh, as its caller and the called app see it: to compare two meshes by."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field

from harness.routing import Request
from harness.wire import App, Message, Side, Wire

Fields = dict[str, list[str]]

# What every proxy writes for itself; the length of no body at all.
UNSEEN = frozenset(
    {"x-id", "content-length", "x-request-id", "x-envoy-expected-rq-timeout-ms", "x-forwarded-client-cert"}
)
UNTOLD = frozenset({"date", "server", "x-envoy-upstream-service-time", "x-lictor-reason"})

FRAMING = frozenset({"content-length", "transfer-encoding"})  # of an answer to HEAD there is none


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a request. `instance` is "" where a proxy has answered, `status` 0 where nobody has."""

    status: int
    body: str
    answer: Fields
    instance: str = ""
    method: str = ""
    target: str = ""
    seen: Fields = field(default_factory=dict)
    attempts: int = 0


NOBODY = Outcome(0, "", {})


def fields_of(message: Message, without: frozenset[str]) -> Fields:
    """Return the headers of a message by name."""
    return {name: message.all(name) for name in sorted({name for name, _ in message.headers} - without)}


def different(first: Outcome, second: Outcome, names: tuple[str, str]) -> list[str]:
    """Return in words what is not the same."""
    fields = ("status", "body", "instance", "method", "target", "seen", "answer", "attempts")
    return [
        f"{one}: {names[0]} {getattr(first, one)!r}, {names[1]} {getattr(second, one)!r}"
        for one in fields
        if getattr(first, one) != getattr(second, one)
    ]


@dataclass(slots=True)
class Apps:
    """The apps of a mesh, and what they have seen, by the number of the request."""

    unseen: frozenset[str] = UNSEEN
    seen: dict[str, list[tuple[str, Message]]] = field(default_factory=dict)

    def app(self, instance: str) -> App:
        """Return the app of an instance. A request tells it by `x-fail` what to answer, or to say nothing."""

        async def answer(side: Side, message: Message) -> bytes | None:
            self.seen.setdefault(message.get("x-id") or "", []).append((instance, message))
            status = message.get("x-fail") or "200"
            if status == "cut":
                return None
            head = "HTTP/1.1 {} Said\r\ncontent-length: 0\r\nx-a: app\r\nx-c: app\r\nx-app: {}\r\n\r\n"
            return head.format(status, instance).encode()

        return App(answer)

    async def ask(
        self, port: int, request: Request, number: str, tls: tuple[ssl.SSLContext | None, str] = (None, "")
    ) -> Outcome:
        """Send one request, on a connection of its own. `tls` is a context and an SNI."""
        try:
            async with await Wire.open(port, *tls) as wire:
                answer = await wire.ask(request.lines(f"x-id: {number}"), request.method)
        except ConnectionError:
            return NOBODY
        untold = UNTOLD | FRAMING if request.method == "HEAD" else UNTOLD
        told = (answer.status, answer.body.decode("latin-1"), fields_of(answer, untold))
        found = self.seen.pop(number, None)
        if found is None:
            return Outcome(*told)
        instance, message = found[-1]
        seen = fields_of(message, self.unseen)
        return Outcome(*told, instance, str(message.first[0]), message.target, seen, len(found))
