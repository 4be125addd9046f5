"""The delivery side: signed, retried on a schedule, logged; worse by a switch. The receiver is an HTTP server of the test's own."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError
from standardwebhooks import Webhook, WebhookVerificationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from live import listening
from provisioning.emulator.company import Company
from provisioning.emulator.deliveries import Deliveries
from provisioning.emulator.endpoint import Endpoint
from provisioning.emulator.people import Newcomer, People
from provisioning.emulator.records import Progress, Provider
from provisioning.emulator.store import Store
from provisioning.emulator.structure import Structure
from provisioning.emulator.switches import SCHEDULE
from provisioning.errors import ConfigurationError, Conflict, NotFound

WITHIN = 30  # seconds


class Receiver:
    """Keeps what arrives, and answers as `status` says: given the webhook-id and how often it came before."""

    def __init__(self) -> None:
        self.status: Callable[[str, int], int] = lambda webhook_id, before: 201
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.app = Starlette(routes=[Route("/hooks", self._receive, methods=["POST"])])

    @property
    def ids(self) -> list[str]:
        """In the order in which they arrived."""
        return [headers["webhook-id"] for headers, _ in self.got]

    async def _receive(self, request: Request) -> Response:
        webhook_id = request.headers["webhook-id"]
        before = self.ids.count(webhook_id)
        self.got.append((dict(request.headers), await request.body()))
        status = self.status(webhook_id, before)
        return Response(status_code=status) if status == 204 else JSONResponse({"status": "processed"}, status)


class World:
    """A company whose events go to a receiver."""

    def __init__(self, url: str, store: Store) -> None:
        self.store = store
        self.company = Company(store)
        self.people, self.structure = People(self.company), Structure(self.company)
        self.endpoint = Endpoint(store, f"{url}/hooks")
        self.deliveries = Deliveries(store, self.company, self.endpoint)

    def populate(self, number: int) -> None:
        """A directory with so many people: one event more than that."""
        directory = self.structure.add_directory(self.structure.add_organization("Acme").id, Provider.GOOGLE)
        self.people.enrol([Newcomer("N", str(n), f"{n}@acme.example") for n in range(number)], directory.id)

    def progress(self) -> Counter[Progress]:
        """How many deliveries there are of each."""
        return Counter(delivery.progress for delivery in self.deliveries.latest(1000))


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def world(receiver: Receiver, tmp_path: Path) -> Iterator[World]:
    """Its deliveries have begun, with waits of next to nothing."""
    store = Store(tmp_path / "state.db")
    with listening(receiver.app) as url:
        world = World(url, store)
        world.deliveries.switch({"retry_scale": 0.000001})
        world.deliveries.start()
        yield world
        world.deliveries.stop()
    store.close()


def test_every_event_is_delivered_signed_as_it_is(world: World, receiver: Receiver) -> None:
    """Verified by the standard's own library; the body is the event's, byte for byte; each attempt is logged."""
    world.populate(20)
    assert world.deliveries.settled(WITHIN)
    events = {f"msg_{event.id.removeprefix('evt_')}": event.body for event in world.company.events()}
    assert len(receiver.got) == len(events) == 21
    for headers, body in receiver.got:
        Webhook(world.endpoint.secrets[0]).verify(body.decode(), headers)
        assert body.decode() == events[headers["webhook-id"]]
    attempts = [attempt for each in world.deliveries.latest(100) for attempt in each.attempts]
    assert {(attempt.status, attempt.outcome, attempt.error) for attempt in attempts} == {(201, "processed", None)}
    assert len(attempts) == 21
    assert all(attempt.milliseconds >= 0 for attempt in attempts)


def test_what_is_not_answered_well_is_sent_again_under_the_same_id(world: World, receiver: Receiver) -> None:
    """400 and 500 alike, until a 2xx; each time signed anew."""
    receiver.status = lambda webhook_id, before: (500, 400, 301, 204)[min(before, 3)]
    world.populate(3)
    assert world.deliveries.settled(WITHIN)
    assert set(Counter(receiver.ids).values()) == {4}
    assert world.progress() == {Progress.DELIVERED: 4}
    assert [[attempt.status for attempt in each.attempts] for each in world.deliveries.latest(9)] == [[500, 400, 301, 204]] * 4


def test_after_the_schedule_it_is_given_up_and_can_be_asked_for(world: World, receiver: Receiver) -> None:
    """Eight attempts, 27.6 hours in Scalekit's time; then only on request."""
    assert (len(SCHEDULE), round(sum(SCHEDULE) / 3600, 1)) == (8, 27.6)
    receiver.status = lambda webhook_id, before: 503
    world.populate(0)
    assert world.deliveries.settled(WITHIN)
    [given_up] = world.deliveries.latest(9)
    assert (given_up.progress, len(given_up.attempts), len(receiver.got)) == (Progress.GIVEN_UP, 8, 8)

    receiver.status = lambda webhook_id, before: 201
    assert world.deliveries.resend() == [given_up.id]
    assert world.deliveries.settled(WITHIN)
    assert world.progress() == {Progress.DELIVERED: 1}
    assert world.deliveries.resend() == []
    with pytest.raises(NotFound):
        world.deliveries.resend(["msg_none"])


def test_an_unreachable_service_is_an_error_in_the_log(world: World) -> None:
    """Not a status; and what is lost on the way, or with its answer, is told apart."""
    world.deliveries.switch({"paused": True})
    world.populate(0)
    world.endpoint.url = "http://127.0.0.1:1/hooks"
    world.deliveries.switch({"paused": False})
    assert world.deliveries.settled(WITHIN)
    [delivery] = world.deliveries.latest(9)
    assert {(attempt.status, attempt.error) for attempt in delivery.attempts} == {(None, "ConnectError")}


def test_lost_attempts_are_sent_again_and_half_of_them_had_arrived(world: World, receiver: Receiver) -> None:
    """So the receiver gets duplicates that Scalekit does not know to be any."""
    world.deliveries.switch({"drop": 0.5})
    world.populate(100)
    assert world.deliveries.settled(WITHIN)
    errors = Counter(attempt.error for each in world.deliveries.latest(200) for attempt in each.attempts if attempt.error)
    assert errors.keys() == {"lost on its way", "its answer was lost"}
    assert len(receiver.got) > len(set(receiver.ids))
    assert set(receiver.ids) >= {each.id for each in world.deliveries.latest(200) if each.progress is Progress.DELIVERED}


def test_duplicates_have_the_same_id_and_come_after_a_good_answer(world: World, receiver: Receiver) -> None:
    """All of them, with the switch at one; once more each."""
    world.deliveries.switch({"duplicates": 1, "reorder": 0.1})
    world.populate(10)
    assert world.deliveries.settled(WITHIN)
    assert set(Counter(receiver.ids).values()) == {2}
    assert world.progress() == {Progress.DELIVERED: 11}


def test_reordering_shuffles(world: World, receiver: Receiver) -> None:
    """Otherwise, one at a time, they arrive as they happened."""
    world.deliveries.switch({"at_once": 1})
    world.populate(30)
    assert world.deliveries.settled(WITHIN)
    assert receiver.ids == sorted(receiver.ids)
    receiver.got.clear()
    world.deliveries.switch({"reorder": 0.3})
    world.people.enrol([Newcomer("M", str(n), f"m{n}@acme.example") for n in range(30)], world.company.directory(None).id)
    assert world.deliveries.settled(WITHIN)
    assert len(receiver.ids) == 30
    assert receiver.ids != sorted(receiver.ids)


def test_while_paused_nothing_is_sent_and_a_restart_goes_on(world: World, receiver: Receiver) -> None:
    """What waits is delivered by the next emulator of the folder; what was delivered is not sent again."""
    world.populate(2)
    assert world.deliveries.settled(WITHIN)
    world.deliveries.switch({"paused": True})
    world.people.suspend("0@acme.example")
    assert not world.deliveries.settled(0.2)
    assert len(receiver.got) == 3
    world.deliveries.stop()

    again = World(world.endpoint.url.removesuffix("/hooks"), world.store)
    assert again.progress() == {Progress.DELIVERED: 3, Progress.WAITING: 1}
    again.deliveries.start()
    assert again.deliveries.settled(WITHIN)
    again.deliveries.stop()
    assert len(receiver.got) == 4
    assert json.loads(receiver.got[-1][1])["data"]["active"] is False


def test_it_can_be_stopped_at_once(world: World) -> None:
    """Before its thread has come to anything; a hundred times."""
    for _ in range(100):
        deliveries = Deliveries(Store(), Company(Store()), world.endpoint)
        deliveries.start()
        ending = threading.Thread(target=deliveries.stop)
        ending.start()
        ending.join(WITHIN)
        assert not ending.is_alive()


def test_a_rotation_goes_from_one_secret_over_both_to_the_other(world: World, receiver: Receiver) -> None:
    """And the next rotation back: a service that was given both goes through every one."""
    old, new = world.endpoint.secrets

    def accepted() -> list[bool]:
        receiver.got.clear()
        world.people.enrol([Newcomer("N", "N", f"{len(world.company.events())}@acme.example")], world.company.directory(None).id)
        assert world.deliveries.settled(WITHIN)
        [(headers, body)] = receiver.got
        return [_verifies(secret, headers, body) for secret in (old, new)]

    world.populate(0)
    assert world.deliveries.settled(WITHIN)
    assert accepted() == [True, False]
    world.endpoint.begin_rotation()
    assert accepted() == [True, True]
    with pytest.raises(Conflict):
        world.endpoint.begin_rotation()
    world.endpoint.finish_rotation()
    assert accepted() == [False, True]
    with pytest.raises(Conflict):
        world.endpoint.finish_rotation()
    assert Endpoint(world.store, world.endpoint.url).secrets == world.endpoint.secrets == (new, old)
    world.endpoint.begin_rotation()
    world.endpoint.finish_rotation()
    assert accepted() == [True, False]


def _verifies(secret: str, headers: dict[str, str], body: bytes) -> bool:
    try:
        Webhook(secret).verify(body.decode(), headers)
    except WebhookVerificationError:
        return False
    return True


@pytest.mark.parametrize("wrong", [{"drop": 2}, {"drop": -1}, {"at_once": 0}, {"retry_scale": 0}, {"reorder": "x"}, {"none": 1}])
def test_switches_that_make_no_sense_are_refused(world: World, wrong: dict[str, object]) -> None:
    """And the others stay as they were."""
    before = world.deliveries.switches
    with pytest.raises(ValidationError):
        world.deliveries.switch(wrong)
    assert world.deliveries.switches == before


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/webhooks/scalekit",
        "http://10.0.0.1/",
        "ftp://127.0.0.1/",
        "127.0.0.1:8000",
        "http://",
        "http://[::1",
        "http://127.0.0.1:9/\x01",
        "",
    ],
)
def test_it_delivers_to_this_machine_unless_told(url: str) -> None:
    """Made-up people must not reach somebody's production by a typing mistake."""
    with pytest.raises(ConfigurationError):
        Endpoint(Store(), url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/x", "http://localhost/x", "https://[::1]:1/x"])
def test_loopback_is_this_machine(url: str) -> None:
    """By any of its names."""
    assert Endpoint(Store(), url).url == url


def test_it_can_be_told_to_deliver_elsewhere() -> None:
    """In so many words."""
    assert Endpoint(Store(), "https://staging.example.com/x", anywhere=True).url == "https://staging.example.com/x"


@pytest.mark.parametrize("answer", [b"[" * 200_000, b"\xed\xa0\x80", b"null", b"[]", b'{"status": 1}', b""])
def test_whatever_the_service_answers_the_others_are_delivered(answer: bytes) -> None:
    """An answer that cannot be read is still an answer, and nothing that goes wrong with one ends them all."""
    app = Starlette(routes=[Route("/hooks", lambda _: Response(answer, media_type="application/json"), methods=["POST"])])
    with listening(app) as url:
        world = World(url, Store())
        world.deliveries.switch({"retry_scale": 0.000001})
        world.deliveries.start()
        world.populate(3)
        try:
            assert world.deliveries.settled(WITHIN)
            assert sum(world.progress().values()) == 4
            assert Progress.WAITING not in world.progress()
        finally:
            world.deliveries.stop()


def test_one_delivery_asked_for_twice_is_one(world: World, receiver: Receiver) -> None:
    """Each asked for goes through the schedule once."""
    world.populate(0)
    assert world.deliveries.settled(WITHIN)
    [delivery] = world.deliveries.latest(9)
    assert world.deliveries.resend([delivery.id, delivery.id]) == [delivery.id]
    assert world.deliveries.settled(WITHIN)
    assert len(receiver.got) == 2
