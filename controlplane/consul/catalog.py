"""The agent, as the mesh asks it: what can be watched, what is read once, what is changed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from controlplane.consul import questions
from controlplane.consul.client import Client, Response
from controlplane.consul.default_action import default_action
from controlplane.consul.paths import Segment, path
from controlplane.consul.places import MAX_FIRST_READS, MAX_INTENTIONS, MAX_WATCHES, Places
from controlplane.consul.questions import ROW_BY_ROW, Question
from controlplane.consul.rows import Later, Rows, decoded_whole, is_large
from controlplane.consul.settings import ConsulSettings
from policies.errors import CatalogBadAnswer, CatalogNotFound
from policies.watches import ChainWatch, DefaultActionWatch, IntentionsWatch, UpstreamWatch, Watch


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of a read; a long one is `Later` or `Rows`, to be decoded by whoever wants it.

    `cursor` goes into the next blocking read: an index, or a content hash.
    `filtered`: the token could not see everything (X-Consul-Results-Filtered-By-ACLs).
    """

    data: Any
    cursor: str = ""
    filtered: bool = False


class Catalog:
    """The agent. `async with` it; every method raises a CatalogError when it does not get its answer."""

    def __init__(self, settings: ConsulSettings) -> None:
        self.settings = settings
        self._client = Client(settings)
        self._blocking = Places(MAX_WATCHES)
        self._judging = Places(MAX_INTENTIONS)
        self._first_reads = Places(MAX_FIRST_READS)

    async def __aenter__(self) -> Self:
        """Open lazily: the first request connects."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close every connection."""
        await self.close()

    async def close(self) -> None:
        """Close every connection."""
        await self._client.http.close()

    # --- what can be watched ---

    async def read(self, watch: Watch, cursor: str, wait: float) -> Answer:
        """Return a watch's answer: at once without a cursor, else when it changed or after `wait` seconds."""
        if isinstance(watch, DefaultActionWatch):
            return Answer(await default_action(self._now, watch.service))
        asked = questions.question(watch)
        if isinstance(watch, UpstreamWatch):
            async with (self._blocking if cursor else self._first_reads).place():
                return await self._ask(asked, cursor, wait)
        if isinstance(watch, IntentionsWatch):
            async with self._judging.place():
                return await self._ask(asked, cursor, wait)
        return await self._ask(asked, cursor, wait)

    async def leaf(self, service: str, cursor: str, wait: float) -> Answer:
        """Return the agent's leaf of a service, key included (`GET /v1/agent/connect/ca/leaf/:service`)."""
        return await _whole(await self._ask(questions.leaf(service), cursor, wait))

    async def entry(self, kind: str, name: str, cursor: str = "", wait: float = 0) -> Answer:
        """Return a config entry, decoded, None when there is none (`GET /v1/config/:kind/:name`)."""
        return await _whole(await self._ask(questions.entry(kind, name), cursor, wait))

    # --- what is read once ---

    async def service(self, service_id: str) -> Mapping[str, Any]:
        """Return a service of this agent (`GET /v1/agent/service/:id`). Raise CatalogNotFound."""
        found: Mapping[str, Any] = await self._now(questions.service(service_id))
        return found

    async def services(self) -> Mapping[str, Mapping[str, Any]]:
        """Return all services of this agent by ID (`GET /v1/agent/services`)."""
        found: Mapping[str, Mapping[str, Any]] = await self._now(questions.SERVICES)
        return found

    async def roots(self) -> Mapping[str, Any]:
        """Return the CA roots (`GET /v1/agent/connect/ca/roots`)."""
        found: Mapping[str, Any] = await self._now(questions.ROOTS)
        return found

    async def own_chain(self, service: str) -> Any:
        """Return a service's chain, which tells its datacenter and protocol (`GET /v1/discovery-chain/:service`)."""
        return await self._now(questions.chain(ChainWatch(service, service)))

    async def maintenance_reason(self, service_id: str) -> str | None:
        """Return why a service is in maintenance (`GET /v1/agent/checks`); None when it is not, or we may not see."""
        check = (await self._now(questions.CHECKS)).get(f"_service_maintenance:{service_id}")
        return str(check.get("Notes") or "") if isinstance(check, Mapping) else None

    # --- what is changed ---

    async def register(self, definition: Mapping[str, Any]) -> None:
        """Register a service or proxy (`PUT /v1/agent/service/register`). Idempotent."""
        await self._client.send(
            "PUT", path("agent/service/register"), [("replace-existing-checks", "true")], definition
        )

    async def deregister(self, service_id: str) -> None:
        """Deregister by ID; one that is not there is fine (`PUT /v1/agent/service/deregister/:id`)."""
        try:
            await self._client.agent.service.deregister(_quoted(service_id))
        except CatalogNotFound:
            return

    async def maintenance(self, service_id: str, *, enable: bool, reason: str) -> None:
        """Put a service into maintenance or out of it (`PUT /v1/agent/service/maintenance/:id`)."""
        word = "true" if enable else "false"
        await self._client.agent.service.maintenance(_quoted(service_id), word, reason=reason)

    # --- anything ---

    async def ask(self, method: str, parts: Sequence[str], query: Mapping[str, str], body: object = None) -> Any:
        """Return the decoded answer of any path: what the operator's command line asks. None for an empty one."""
        where = path(*(Segment(part) for part in parts))
        response = await self._client.send(method, where, query.items(), body)
        if not is_large(response.content):
            return decoded_whole(response.content, where) if response.content else None
        return await asyncio.to_thread(decoded_whole, response.content, where)

    # --- how ---

    async def _now(self, question: Question) -> Any:
        return (await _whole(await self._ask(question))).data

    async def _ask(self, question: Question, cursor: str = "", wait: float = 0) -> Answer:
        since = [("hash" if question.by_hash else "index", cursor), ("wait", f"{wait:g}s")] if cursor else []
        query = [*(question.query or {}).items(), *since]
        try:
            if question.body is None:
                response = await self._client.send("GET", question.path, query)
            else:
                response = await self._client.send("POST", question.path, query, question.body)
        except CatalogNotFound as error:
            if not question.may_be_absent:
                raise
            if not error.index:
                raise CatalogBadAnswer(error.where, "a 404 that is not Consul's: it has no index") from error
            return Answer(None, error.index)
        headers = response.headers
        return Answer(
            _data(question, response),
            headers.get("X-Consul-ContentHash" if question.by_hash else "X-Consul-Index", ""),
            headers.get("X-Consul-Results-Filtered-By-ACLs") == "true",
        )


def _data(question: Question, response: Response) -> Any:
    where, content = question.path, response.content
    if not is_large(content):
        return question.check(where, decoded_whole(content, where))
    if question.depth == ROW_BY_ROW:
        return Rows(where, content)
    return Later(where, content, question.depth, lambda data: question.check(where, data))


async def _whole(answer: Answer) -> Answer:
    """Return an answer of which nothing is left to decode."""
    if not isinstance(answer.data, Later):
        return answer
    return Answer(await asyncio.to_thread(answer.data.decoded), answer.cursor, answer.filtered)


def _quoted(service_id: str) -> str:
    """Return an ID as part of python-consul2's own paths. Raise CatalogRefused, as `path`."""
    return path(Segment(service_id)).rpartition("/")[2]
