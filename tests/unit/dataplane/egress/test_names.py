"""Host names: their addresses, how long they hold, and what stays when DNS does not answer."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable

import pytest

from dataplane.egress.names import FILE_SECONDS, MAX_SECONDS, MIN_SECONDS, RETRY_SECONDS, Names, Resolved, Resolver
from harness.dns import NameServer
from policies.errors import NameNotResolved


class Script:
    """A look-up whose answers a test writes; how long each was to hold is told by what is slept."""

    def __init__(self, *answers: Resolved | str) -> None:
        self.answers = itertools.chain(answers, itertools.repeat(answers[-1]))
        self.asked: list[str] = []

    async def __call__(self, name: str) -> Resolved:
        self.asked.append(name)
        answer = next(self.answers)
        if isinstance(answer, str):
            raise NameNotResolved(name, answer)
        return answer


class Sleeps:
    """In the place of sleep: writes down how long, and lets the test take the steps."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._step = asyncio.Semaphore(0)
        self._asleep = asyncio.Semaphore(0)

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        self._asleep.release()
        await self._step.acquire()

    async def until_asleep(self) -> None:
        await self._asleep.acquire()

    async def go_on(self) -> None:
        self._step.release()
        await self.until_asleep()


@pytest.fixture
def sleeps() -> Sleeps:
    return Sleeps()


@pytest.fixture
async def follow(sleeps: Sleeps) -> AsyncIterator[Callable[[Script], Names]]:
    made: list[Names] = []

    def start(script: Script) -> Names:
        made.append(Names(script, sleeps))
        made[0].follow({"a.example"})
        return made[0]

    yield start
    for one in made:
        one.close()
    await asyncio.gather(
        *(task for task in asyncio.all_tasks() if task is not asyncio.current_task()), return_exceptions=True
    )


ONE, OTHER = Resolved(("192.0.2.1",), 30.0), Resolved(("192.0.2.2",), 7.0)


async def test_a_name_is_asked_for_again_when_its_ttl_is_over(
    follow: Callable[[Script], Names], sleeps: Sleeps
) -> None:
    names = follow(Script(ONE, OTHER))
    changed: list[str] = []
    names.changed = changed.append
    assert names.addresses("a.example") == ()
    assert not names.settled
    await sleeps.until_asleep()
    assert names.settled
    assert names.addresses("a.example") == ("192.0.2.1",)
    await sleeps.go_on()
    assert names.addresses("a.example") == ("192.0.2.2",)
    assert sleeps.seconds == [30.0, 7.0]
    assert changed == ["a.example", "a.example"]


async def test_another_order_is_no_change_but_is_what_is_tried(
    follow: Callable[[Script], Names], sleeps: Sleeps
) -> None:
    names = follow(Script(Resolved(("192.0.2.1", "192.0.2.2"), 5.0), Resolved(("192.0.2.2", "192.0.2.1"), 5.0)))
    await sleeps.until_asleep()
    changed: list[str] = []
    names.changed = changed.append
    await sleeps.go_on()
    assert changed == []
    assert names.addresses("a.example") == ("192.0.2.2", "192.0.2.1")


async def test_the_last_good_addresses_stay_while_dns_fails_and_it_is_asked_ever_more_rarely(
    follow: Callable[[Script], Names], sleeps: Sleeps
) -> None:
    names = follow(Script(ONE, *["SERVFAIL"] * 6, OTHER))
    await sleeps.until_asleep()
    for _ in range(6):
        await sleeps.go_on()
        assert names.addresses("a.example") == ("192.0.2.1",)
    assert sleeps.seconds == [30.0, *RETRY_SECONDS, RETRY_SECONDS[-1]]
    assert [str(one) for one in names.problems] == ["host name a.example: SERVFAIL; the last good addresses stay"]
    await sleeps.go_on()
    assert names.addresses("a.example") == ("192.0.2.2",)
    assert names.problems == ()


async def test_a_name_that_never_was_is_settled_and_closed(follow: Callable[[Script], Names], sleeps: Sleeps) -> None:
    names = follow(Script("Domain name not found"))
    await sleeps.until_asleep()
    assert names.settled
    assert names.addresses("a.example") == ()
    assert names.problems[0].fix == "closed"


@pytest.mark.parametrize(("ttl", "seconds"), [(0.0, FILE_SECONDS), (0.1, MIN_SECONDS), (1e6, MAX_SECONDS)])
async def test_a_ttl_has_its_bounds(
    follow: Callable[[Script], Names], sleeps: Sleeps, ttl: float, seconds: float
) -> None:
    follow(Script(Resolved(("192.0.2.1",), ttl)))
    await sleeps.until_asleep()
    assert sleeps.seconds == [seconds]


async def test_a_name_that_no_table_speaks_of_is_forgotten(follow: Callable[[Script], Names], sleeps: Sleeps) -> None:
    names = follow(Script(ONE))
    await sleeps.until_asleep()
    names.follow({"b.example"})
    await sleeps.until_asleep()
    assert names.addresses("a.example") == ()
    assert names.addresses("b.example") == ("192.0.2.1",)


# --- with c-ares ---------------------------------------------------------------------------------------------------


@pytest.fixture
async def server() -> AsyncIterator[NameServer]:
    async with NameServer().running() as running:
        yield running


@pytest.fixture
async def resolve(server: NameServer) -> AsyncIterator[Resolver]:
    resolver = Resolver((f"127.0.0.1:{server.port}",))
    yield resolver
    resolver.close()


async def test_both_families_and_the_ttl_come_from_dns(server: NameServer, resolve: Resolver) -> None:
    server.names["api.example.com"] = ("192.0.2.1", "192.0.2.2", "2001:db8::1")
    server.ttl = 17
    found = await resolve("API.example.com")
    assert set(found.addresses) == {"192.0.2.1", "192.0.2.2", "2001:db8::1"}
    assert found.ttl == 17.0


async def test_names_of_the_machine_need_no_dns(server: NameServer, resolve: Resolver) -> None:
    found = await resolve("localhost")
    assert "127.0.0.1" in found.addresses
    assert server.asked == 0


async def test_no_such_name_no_address_and_no_answer_are_told(server: NameServer, resolve: Resolver) -> None:
    with pytest.raises(NameNotResolved, match="not found"):
        await resolve("nope.example.com")
    server.names["empty.example.com"] = ()
    with pytest.raises(NameNotResolved):
        await resolve("empty.example.com")
    server.broken = True
    with pytest.raises(NameNotResolved):
        await resolve("api.example.com")


async def test_what_cannot_be_a_name_is_told(resolve: Resolver) -> None:
    for name in ("a" * 70 + ".example.com", "", "a..b", "ex ample.com", "müller.example"):
        with pytest.raises(NameNotResolved):
            await resolve(name)
