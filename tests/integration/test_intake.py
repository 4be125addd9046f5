"""Between the async edge and the synchronous core: who is answered when and with what, also when too much comes or nothing goes."""

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Semaphore
from time import monotonic

import pytest

from factories import delivery, delivery_rows, event
from faults import Gate, opened, until
from provisioning import intake as module
from provisioning.db.session import Database
from provisioning.errors import Unavailable
from provisioning.events import Delivery
from provisioning.inbox import Inbox, Outcome, Receipt
from provisioning.intake import Intake, Receive

PATIENCE_SECONDS = 30


class Slow:
    """A `receive` that waits for leave before each batch, and keeps the webhook ids of each."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.entered = Semaphore(0)
        self.leave = Semaphore(0)
        self.failure: Exception | None = None

    def __call__(self, deliveries: Sequence[Delivery]) -> list[Receipt]:
        self.batches.append([each.webhook_id for each in deliveries])
        self.entered.release()
        assert self.leave.acquire(timeout=PATIENCE_SECONDS)
        if self.failure:
            raise self.failure
        return receipts(deliveries)

    async def is_entered(self) -> None:
        """Return once the next batch has begun."""
        assert await asyncio.to_thread(self.entered.acquire, timeout=PATIENCE_SECONDS)


def receipts(deliveries: Sequence[Delivery]) -> list[Receipt]:
    return [Receipt(each.webhook_id, Outcome.PROCESSED) for each in deliveries]


@contextmanager
def running(receive: Receive, *, max_waiting: int = 2000, deadline: float = PATIENCE_SECONDS) -> Iterator[Intake]:
    """An intake at work."""
    intake = Intake(receive, max_waiting=max_waiting, deadline=deadline)
    intake.start()
    try:
        yield intake
    finally:
        intake.stop()


def letters(*ids: object) -> list[Delivery]:
    return [delivery(event("user_created", f"u{id_}"), f"msg_{id_}") for id_ in ids]


async def submitted(intake: Intake, *ids: object) -> list[asyncio.Task[Receipt]]:
    """Tasks that submit deliveries, all of them already in the queue."""
    tasks = [asyncio.create_task(intake.submit(letter)) for letter in letters(*ids)]
    await asyncio.sleep(0)
    return tasks


def test_every_caller_gets_its_own_receipt(database: Database) -> None:
    """Of hundreds at once; what is answered is stored."""

    async def main(intake: Intake) -> None:
        deliveries = letters(*range(400))
        found = await asyncio.gather(*map(intake.submit, deliveries))
        assert [receipt.webhook_id for receipt in found] == [each.webhook_id for each in deliveries]
        assert {receipt.outcome for receipt in found} == {"processed"}
        assert delivery_rows(database).keys() == {each.webhook_id for each in deliveries}

    with running(Inbox(database).receive) as intake:
        asyncio.run(main(intake))


def test_nobody_is_answered_before_the_commit(postgres_url: str) -> None:
    """The commit itself is made to wait here."""

    async def main(intake: Intake, gate: Gate) -> None:
        (task,) = await submitted(intake, 1)
        await asyncio.to_thread(until, lambda: gate.waiting() == 1)
        assert not task.done()
        gate.open()
        assert (await task).outcome == "processed"

    with opened(postgres_url) as database, Gate.before_commits(postgres_url, "users") as gate, running(Inbox(database).receive) as intake:
        asyncio.run(main(intake, gate))


def test_one_batch_gathers_while_another_commits() -> None:
    async def main(intake: Intake, slow: Slow) -> None:
        first = await submitted(intake, 0)
        await slow.is_entered()
        others = await submitted(intake, *range(1, 172))
        slow.leave.release(3)
        await asyncio.gather(*first, *others)

    slow = Slow()
    with running(slow) as intake:
        asyncio.run(main(intake, slow))
    assert [len(batch) for batch in slow.batches] == [1, module.MAX_BATCH, 171 - module.MAX_BATCH]
    assert [webhook_id for batch in slow.batches for webhook_id in batch] == [f"msg_{number}" for number in range(172)]


def test_only_a_batch_that_others_queued_behind_is_followed_by_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle service answers at once."""
    waits: list[float] = []
    monkeypatch.setattr(module, "sleep", waits.append)

    async def main(intake: Intake, slow: Slow) -> None:
        slow.leave.release(100)
        for number in range(100):
            await intake.submit(letters(number)[0])
            await slow.is_entered()
        assert waits == []
        tasks = await submitted(intake, "a")
        await slow.is_entered()
        tasks += await submitted(intake, "b")
        slow.leave.release(2)
        await asyncio.gather(*tasks)
        assert set(waits) == {module.LOOK_SECONDS}

    slow = Slow()
    with running(slow) as intake:
        asyncio.run(main(intake, slow))


def test_nobody_waits_for_more_when_as_many_are_there_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """One was answered and one had queued behind it; when two are there again they go together, however much patience there would be."""
    monkeypatch.setattr(module, "GATHER_SECONDS", 60)

    async def main(intake: Intake, slow: Slow) -> None:
        first = await submitted(intake, "a")
        await slow.is_entered()
        others = await submitted(intake, "b")
        slow.leave.release(2)
        await asyncio.gather(*first)
        await asyncio.gather(*others, intake.submit(letters("c")[0]))

    slow = Slow()
    with running(slow) as intake:
        asyncio.run(main(intake, slow))
    assert slow.batches == [["msg_a"], ["msg_b", "msg_c"]]


def test_too_many_waiting_are_turned_away() -> None:
    """At once, and told to come again soon; those that wait are answered all the same."""

    async def main(intake: Intake, slow: Slow) -> None:
        tasks = await submitted(intake, 0)
        await slow.is_entered()
        tasks += await submitted(intake, 1, 2, 3)
        with pytest.raises(Unavailable) as refusal:
            await intake.submit(letters(4)[0])
        assert refusal.value.retry_after == 1
        slow.leave.release(2)
        assert len(await asyncio.gather(*tasks)) == 4

    slow = Slow()
    with running(slow, max_waiting=3) as intake:
        asyncio.run(main(intake, slow))
    assert slow.batches == [["msg_0"], ["msg_1", "msg_2", "msg_3"]]


def test_those_whose_bodies_take_too_much_memory_are_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few they are; one that is larger than all may be together waits alone; and once they are taken there is room again."""
    monkeypatch.setattr(module, "MAX_WAITING_BYTES", 1000)

    async def waiting(intake: Intake, *sizes: int) -> list[asyncio.Task[Receipt]]:
        tasks = [asyncio.create_task(intake.submit(delivery(bytes(size)))) for size in sizes]
        await asyncio.sleep(0)
        return tasks

    async def main(intake: Intake, slow: Slow) -> None:
        tasks = await submitted(intake, 0)
        for sizes in ((300, 300, 300, 300), (5000,)):
            await slow.is_entered()
            tasks += await waiting(intake, *sizes)
            with pytest.raises(Unavailable) as refusal:
                await intake.submit(delivery(b"{}"))
            assert refusal.value.retry_after == 1
            slow.leave.release()
        slow.leave.release()
        assert len(await asyncio.gather(*tasks)) == 6

    slow = Slow()
    with running(slow) as intake:
        asyncio.run(main(intake, slow))


def test_who_waits_is_counted_while_a_batch_is_held_up() -> None:
    """Each as it comes, and nobody once all are taken."""
    counted: list[int] = []

    async def main(intake: Intake, slow: Slow) -> None:
        tasks = await submitted(intake, 0)
        await slow.is_entered()
        tasks += await submitted(intake, 1, 2, 3)
        assert counted[-1] == 3
        slow.leave.release(2)
        await asyncio.gather(*tasks)

    slow = Slow()
    intake = Intake(slow, max_waiting=10, deadline=PATIENCE_SECONDS, count_waiting=counted.append)
    intake.start()
    asyncio.run(main(intake, slow))
    intake.stop()
    assert counted[-1] == 0


def test_a_hanging_database_costs_a_caller_its_deadline_and_no_more() -> None:
    """Whoever was told to come again is not received any more, and when the database is back so is the service."""

    async def main(intake: Intake, slow: Slow) -> None:
        started = monotonic()
        (in_hand,) = await submitted(intake, "in hand")
        await slow.is_entered()
        (queued,) = await submitted(intake, "queued")
        for task in (in_hand, queued):
            with pytest.raises(Unavailable):
                await task
        assert 0.2 <= monotonic() - started < 2
        slow.leave.release(2)
        assert (await intake.submit(letters("later")[0])).webhook_id == "msg_later"

    slow = Slow()
    with running(slow, deadline=0.2) as intake:
        asyncio.run(main(intake, slow))
    assert slow.batches == [["msg_in hand"], ["msg_later"]]


def test_a_caller_that_left_is_dropped_from_the_queue() -> None:
    async def main(intake: Intake, slow: Slow) -> None:
        tasks = await submitted(intake, 0)
        await slow.is_entered()
        left, stays = await submitted(intake, "left", "stays")
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left
        slow.leave.release(2)
        await asyncio.gather(*tasks, stays)

    slow = Slow()
    with running(slow) as intake:
        asyncio.run(main(intake, slow))
    assert slow.batches == [["msg_0"], ["msg_stays"]]


@pytest.mark.parametrize("failure", [Unavailable("away", retry_after=7), RuntimeError("a fault of ours")])
def test_what_befalls_a_batch_befalls_all_its_callers_and_nobody_else(failure: Exception) -> None:
    """The thread outlives it."""

    async def main(intake: Intake, slow: Slow) -> None:
        first = await submitted(intake, 0)
        await slow.is_entered()
        second = await submitted(intake, 1, 2)
        slow.leave.release()
        assert [each.webhook_id for each in await asyncio.gather(*first)] == ["msg_0"]
        await slow.is_entered()
        third = await submitted(intake, 3)
        slow.failure = failure
        slow.leave.release()
        assert await asyncio.gather(*second, return_exceptions=True) == [failure, failure]
        await slow.is_entered()
        slow.failure = None
        slow.leave.release()
        assert [each.webhook_id for each in await asyncio.gather(*third)] == ["msg_3"]

    slow = Slow()
    with running(slow) as intake:
        asyncio.run(main(intake, slow))


def test_receipts_that_do_not_match_are_a_failure_of_the_batch_and_not_of_the_thread() -> None:
    """It must outlive whatever happens to one batch."""

    def short(deliveries: Sequence[Delivery]) -> list[Receipt]:
        return receipts(deliveries)[1:] if deliveries[0].webhook_id == "msg_odd" else receipts(deliveries)

    async def main(intake: Intake) -> None:
        with pytest.raises(ValueError, match="shorter"):
            await intake.submit(letters("odd")[0])
        assert (await intake.submit(letters("even")[0])).webhook_id == "msg_even"

    with running(short) as intake:
        asyncio.run(main(intake))


def test_stopping_commits_what_waits_and_takes_nothing_new() -> None:
    async def main(intake: Intake, slow: Slow) -> None:
        taken = await submitted(intake, 0)
        await slow.is_entered()
        stopping = asyncio.create_task(asyncio.to_thread(intake.stop))
        while not (latest := (await submitted(intake, len(taken)))[0]).done():
            taken.append(latest)
        assert isinstance(latest.exception(), Unavailable)
        slow.leave.release(len(taken))
        assert [receipt.webhook_id for receipt in await asyncio.gather(*taken)] == [f"msg_{number}" for number in range(len(taken))]
        await stopping

    slow = Slow()
    intake = Intake(slow, max_waiting=10**6, deadline=PATIENCE_SECONDS)
    intake.start()
    asyncio.run(main(intake, slow))


def test_callers_of_several_loops_are_answered_each_in_its_own() -> None:
    """Also when one of them closes while its delivery is being committed."""
    slow = Slow()
    with running(slow) as intake, ThreadPoolExecutor() as threads:

        async def submit(name: str) -> list[str]:
            found = await asyncio.gather(*map(intake.submit, letters(*(f"{name}{number}" for number in range(50)))))
            return [receipt.webhook_id for receipt in found]

        async def leave() -> None:
            await submitted(intake, "gone")
            await slow.is_entered()

        asyncio.run(leave())
        found = [threads.submit(asyncio.run, submit(name)) for name in "ab"]
        slow.leave.release(200)
        assert [each.result(PATIENCE_SECONDS) for each in found] == [[f"msg_{name}{number}" for number in range(50)] for name in "ab"]
