"""A visitor's token is good when its issuer's published key, the issuer, the audience and the time say so, and not otherwise."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from issuer import (
    AUDIENCE,
    EC_KEY,
    ISSUER,
    RSA_KEY,
    STRANGERS_KEY,
    Answer,
    Issuer,
    drip,
    filled,
    hang,
    new_key,
    published,
    signed_with_the_public_key,
    token,
    unsigned,
)
from live import listening
from provisioning import tokens
from provisioning.errors import KeysUnavailable, TokenRefused
from provisioning.settings import Settings
from provisioning.tokens import Visitor

NOW, DAY = int(time.time()), 86_400  # tests run for hours at times


class Desk:
    """A verifier, its issuer, and the time that it believes."""

    def __init__(self, issuer: Issuer, url: str | None, **more: Any) -> None:
        self.issuer = issuer
        self.now = 0.0
        configured = {"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, "jwt_jwks_url": url, **more}
        self.verifier = tokens.TokenVerifier(Settings(_env_file=None, **configured), clock=lambda: self.now)  # type: ignore[call-arg]

    def verify(self, *given: str) -> list[Visitor]:
        """Verify these, all at once."""

        async def all_of_them() -> list[Visitor]:
            return await asyncio.gather(*map(self.verifier.verify, given))

        return asyncio.run(all_of_them())

    def refuses(self, given: str) -> str:
        """Verify one that is refused; what is said then."""
        with pytest.raises(TokenRefused) as refusal:
            self.verify(given)
        return str(refusal.value)


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[Issuer, str]]:
    """An issuer, and where its keys are."""
    issuer = Issuer()
    with listening(issuer) as url:
        yield issuer, f"{url}/keys"


@pytest.fixture
def made(address: tuple[Issuer, str]) -> Iterator[Callable[..., Desk]]:
    """Makes verifiers of an issuer that behaves."""
    issuer, url = address
    issuer.__init__()  # type: ignore[misc]  # as new
    yield lambda **more: Desk(issuer, more.pop("url", url), **more)
    issuer.misbehaves = None


@pytest.fixture
def desk(made: Callable[..., Desk]) -> Desk:
    """One of them."""
    return made()


@pytest.mark.parametrize(("key", "key_id", "algorithm"), [(RSA_KEY, "rsa-1", "RS256"), (EC_KEY, "ec-1", "ES256")])
def test_a_good_token_says_who_it_is(desk: Desk, key: Any, key_id: str, algorithm: str) -> None:
    """By either algorithm."""
    assert desk.verify(token(key, key_id, algorithm)) == [Visitor("jwt:usr_12345678", "org_1", frozenset({"admin"}))]


def test_the_claims_have_the_names_that_are_configured(made: Callable[..., Desk]) -> None:
    """Identity providers put them under names of their own."""
    desk = made(jwt_organization_claim="https://app.example/tenant", jwt_roles_claim="groups")
    claims: dict[str, Any] = {"https://app.example/tenant": "org_9", "groups": ["owner"]}
    [visitor] = desk.verify(token(**claims))
    assert (visitor.organization_id, visitor.roles) == ("org_9", frozenset({"owner"}))


@pytest.mark.parametrize(
    ("claim", "roles"),
    [
        (["admin", "member"], {"admin", "member"}),
        ("admin", {"admin"}),
        ("member,admin", {"member", "admin"}),
        ("member admin", {"member", "admin"}),
        (" member, admin ,", {"member", "admin"}),
        ([], set()),
        ("", set()),
        (["admin,owner"], {"admin,owner"}),
        (None, set()),
        (True, set()),
        (7, set()),
        ({"admin": True}, set()),
        (["admin", 7], set()),
        ([["admin"]], set()),
    ],
)
def test_roles_are_a_list_or_a_separated_text(desk: Desk, claim: object, roles: set[str]) -> None:
    """What is neither gives none."""
    [visitor] = desk.verify(token(roles=claim))
    assert visitor.roles == roles


@pytest.mark.parametrize("claim", [None, 7, True, ["org_1"], {"id": "org_1"}])
def test_an_organization_is_a_text(desk: Desk, claim: object) -> None:
    """Anything else names none."""
    [visitor] = desk.verify(token(oid=claim))
    assert visitor.organization_id is None


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        ("usr_12345678", "jwt:usr_12345678"),
        ("2f1c9a52-f14a-4f8f-8f3f-6c1f0a7e5500", "jwt:2f1c9a52-f14a-4f8f-8f3f-6c1f0a7e5500"),
        ("jane@example.com", "jwt:sha256:8c87b489ce35cf2e"),
        ("jane.doe", None),
        ("jane", None),
        ("jane_doe", None),
        ("usr_jane@example.com", None),
        ("+4915112345678", None),
        ("usr_12345678\nusr_2", None),
        ("\ud800", None),
        ("", None),
    ],
)
def test_the_log_gets_an_id_or_a_digest(desk: Desk, subject: str, name: str | None) -> None:
    """A subject may be somebody's address or name."""
    [visitor] = desk.verify(token(sub=subject))
    if name:
        assert visitor.name == name
    else:
        assert visitor.name.startswith("jwt:sha256:")
        assert not subject or subject not in visitor.name


def test_a_token_may_name_nobody(desk: Desk) -> None:
    """Of an application, say."""
    [visitor] = desk.verify(token(sub=None))
    assert visitor.name == "jwt:unknown"


REFUSED: dict[str, Callable[[], str]] = {
    "expired": lambda: token(exp=NOW - 60),
    "expired long ago": lambda: token(exp=0),
    "not valid yet": lambda: token(nbf=NOW + DAY),
    "issued in the future": lambda: token(iat=NOW + DAY),
    "wrong issuer": lambda: token(iss="https://evil.example"),
    "the issuer with a slash": lambda: token(iss=f"{ISSUER}/"),
    "an issuer that is a list": lambda: token(iss=[ISSUER]),
    "wrong audience": lambda: token(aud="another-application"),
    "wrong audiences": lambda: token(aud=["another-application", f"{AUDIENCE}x"]),
    "an audience that is a number": lambda: token(aud=7),
    "an expiry that is a text": lambda: token(exp="never"),
    "an expiry without end": lambda: token(exp=float("inf")),
    "an expiry that is no number": lambda: token(exp=float("nan")),
    "without exp": lambda: token(exp=None),
    "without iss": lambda: token(iss=None),
    "without aud": lambda: token(aud=None),
    "a subject that is a number": lambda: token(sub=7),
    "no signature": unsigned,
    "no signature, in other letters": lambda: unsigned("NoNe"),
    "no signature under RS256": lambda: unsigned("RS256"),
    "HS256 with the public key": signed_with_the_public_key,
    "HS256 with the public key as published": lambda: signed_with_the_public_key(json.dumps(published("rsa-1", RSA_KEY)).encode()),
    "RS512": lambda: token(algorithm="RS512"),
    "PS256": lambda: token(algorithm="PS256"),
    "ES256 under the id of the RSA key": lambda: token(EC_KEY, "rsa-1", "ES256"),
    "RS256 under the id of the other key": lambda: token(RSA_KEY, "ec-1"),
    "somebody else's key": lambda: token(STRANGERS_KEY),
    "unknown key": lambda: token(STRANGERS_KEY, "unknown"),
    "no key id": lambda: token(key_id=None),
    "a key id that is no text": lambda: unsigned("RS256", kid=7),
    "a key that it brings": lambda: unsigned("RS256", jwk=published("rsa-1", STRANGERS_KEY)),
    "changed claims": lambda: f"{token().split('.')[0]}.{token(oid='org_2').split('.')[1]}.{token().split('.')[2]}",
    "a long one": lambda: token(padding="x" * 9000),
    "a huge one": lambda: "x" * 1_000_000,
    "no token": lambda: "",
    "two parts": lambda: token().rpartition(".")[0],
    "six parts": lambda: f"{token()}.{token()}",
    "deep": lambda: "W1tb" * 1500 + ".e30.x",
}


@pytest.mark.parametrize("what", REFUSED)
def test_no_other_token_is_good(desk: Desk, what: str) -> None:
    """And what is said of it is fixed words."""
    given = REFUSED[what]()
    said = desk.refuses(given)
    assert said in {tokens._NOT_OURS, *tokens._REASONS.values()}
    assert len(desk.verify(token())) == 1


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"exp": NOW - 60}, "expired"),
        ({"nbf": NOW + DAY}, "yet"),
        ({"iss": "x"}, "issuer"),
        ({"aud": "x"}, "audience"),
        ({"exp": None}, "exp"),
    ],
)
def test_whoever_has_a_signed_token_learns_what_is_wrong_with_it(desk: Desk, changed: dict[str, Any], words: str) -> None:
    """And nobody else does."""
    assert words in desk.refuses(token(**changed))
    assert words not in desk.refuses(token(STRANGERS_KEY, **changed))


def test_clocks_may_differ_by_seconds(desk: Desk) -> None:
    """Not by a minute."""
    desk.verify(token(exp=int(time.time()) - 2, nbf=int(time.time()) + 3))


@given(given=st.text(max_size=200) | st.binary(max_size=200).map(lambda octets: octets.decode("latin-1")))
def test_no_text_is_too_odd_to_be_refused(given: str) -> None:
    """By nothing but a refusal, and without asking anybody."""
    Desk(Issuer(), None).refuses(given)


@given(
    header=st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "b64", "zip"]), st.none() | st.text(max_size=5) | st.integers()),
    claims=st.dictionaries(st.sampled_from(list(filled({}))), st.none() | st.text(max_size=5) | st.floats() | st.lists(st.integers())),
)
def test_no_header_or_claim_is_too_odd(header: dict[str, Any], claims: dict[str, Any]) -> None:
    """Also under a good signature."""
    desk = Desk(Issuer(), None)
    desk.verifier._keys._keys = tokens._parsed(json.dumps({"keys": Issuer().keys}).encode())
    for odd in (unsigned("RS256", **header), token(**claims)):
        with suppress(TokenRefused, KeysUnavailable):
            desk.verify(odd)


@pytest.mark.parametrize("left_out", ["iss", "aud"])
def test_unless_both_are_configured_no_token_is_good(made: Callable[..., Desk], left_out: str) -> None:
    """Not even one without the claim, and nobody is asked for keys."""
    desk = made(jwt_issuer=None, jwt_audience=None)
    assert not desk.verifier.configured
    claims: dict[str, Any] = {left_out: None}
    desk.refuses(token(**claims))
    assert desk.issuer.fetches == 0


def test_keys_are_fetched_once(desk: Desk) -> None:
    """Whoever comes first, together or later."""
    desk.verify(*[token()] * 50)
    desk.verify(token(EC_KEY, "ec-1", "ES256"))
    assert desk.issuer.fetches == 1


def test_a_new_key_is_found_without_a_restart(desk: Desk) -> None:
    """At once the first time; after that at most every 30 s."""
    desk.verify(token())
    for number, patience in enumerate((0, 30)):
        key_id, key = f"new-{number}", new_key()
        desk.issuer.keys.append(published(key_id, key))
        if patience:
            desk.refuses(token(key, key_id))
        desk.now += patience
        desk.verify(token(key, key_id), token())
    assert desk.issuer.fetches == 3


def test_a_flood_of_unknown_keys_is_none_to_the_issuer(desk: Desk) -> None:
    """Two fetches in 30 s, whatever is made up; and good tokens stay good meanwhile."""
    desk.verify(token())
    for number in range(500):
        desk.refuses(token(EC_KEY, f"made-up-{number}", "ES256"))
    desk.verify(token())
    assert desk.issuer.fetches == 2


@pytest.mark.parametrize("known", [True, False])
def test_a_flood_is_none_to_an_issuer_in_trouble_either(desk: Desk, known: bool) -> None:
    """A failure does not shorten the pause."""
    if known:
        desk.verify(token())
    desk.issuer.misbehaves, desk.issuer.fetches = _refuse, 0
    for number in range(100):
        with pytest.raises(KeysUnavailable):
            desk.verify(token(EC_KEY, f"made-up-{number}", "ES256"))
    assert desk.issuer.fetches == 1


async def _refuse(_: Request) -> Response:
    return JSONResponse({"keys": Issuer().keys}, 503)


def answering(content: bytes, **more: Any) -> Answer:
    """Say this instead."""

    async def answer(_: Request) -> Response:
        return Response(content, **more)

    return answer


async def elsewhere(_: Request) -> Response:
    """The right keys, but by way of another address."""
    return RedirectResponse("/keys?moved")


async def endless(_: Request) -> Response:
    """More than anybody can hold."""
    return Response(json.dumps({"keys": Issuer().keys}) + " " * 1_000_000)


TROUBLES: dict[str, Answer] = {
    "hangs": hang,
    "drips": drip,
    "fails": _refuse,
    "is not there": answering(json.dumps({"keys": Issuer().keys}).encode(), status_code=404),
    "moved": elsewhere,
    "has too much": endless,
    "a page": answering(b"<html>"),
    "nothing": answering(b""),
    "no text": answering(b"\xff\xfe\x00"),
    "not an object": answering(b"[]"),
    "no keys": answering(b'{"keys": []}'),
    "keys that are none": answering(
        b'{"keys": [7, null, {}, {"kty": "RSA", "kid": "rsa-1"}, {"kty": "RSA", "kid": [], "n": "x", "e": 1}]}'
    ),
    "no gzip": answering(b"{}", headers={"content-encoding": "gzip"}),
    "deep": answering(b"[" * 100_000),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_an_issuer_in_trouble_means_to_try_again(desk: Desk, monkeypatch: pytest.MonkeyPatch, trouble: str) -> None:
    """It is not known whether the token is good; 5 s later the issuer is asked again."""
    monkeypatch.setattr(tokens, "FETCH_WITHIN", 0.5 if trouble in {"hangs", "drips"} else 30)
    desk.issuer.misbehaves = TROUBLES[trouble]
    with pytest.raises(KeysUnavailable) as failure:
        desk.verify(token())
    assert failure.value.retry_after == 5
    monkeypatch.setattr(tokens, "FETCH_WITHIN", 30)
    desk.issuer.misbehaves = None
    desk.now += failure.value.retry_after
    desk.verify(token())


def test_during_an_outage_nobody_waits_for_a_key_they_have(desk: Desk) -> None:
    """Once it is known that the issuer does not answer, it is asked in the background."""
    desk.verify(token())
    desk.issuer.misbehaves = TROUBLES["fails"]
    desk.now += tokens.MAX_AGE
    desk.verify(token())
    desk.issuer.misbehaves = TROUBLES["hangs"]
    desk.now += tokens.PAUSE

    async def while_it_is_asked() -> bool:
        await desk.verifier.verify(token())
        return desk.verifier._keys._fetching is not None

    assert asyncio.run(while_it_is_asked())


WITHDRAWN = {"no keys", "keys that are none"}


@pytest.mark.parametrize("trouble", sorted(TROUBLES.keys() - WITHDRAWN))
def test_keys_in_use_stay_good_meanwhile(desk: Desk, monkeypatch: pytest.MonkeyPatch, trouble: str) -> None:
    """Also when they have aged; of other keys it is not known what they are."""
    desk.verify(token())
    monkeypatch.setattr(tokens, "FETCH_WITHIN", 0.5 if trouble in {"hangs", "drips"} else 30)
    desk.issuer.misbehaves = TROUBLES[trouble]
    desk.now += tokens.MAX_AGE
    desk.verify(token(), token())
    with pytest.raises(KeysUnavailable):
        desk.verify(token(STRANGERS_KEY, "unknown"))
    assert desk.issuer.fetches == 2


@pytest.mark.parametrize("trouble", sorted(WITHDRAWN))
def test_keys_that_were_withdrawn_are_good_no_more(desk: Desk, trouble: str) -> None:
    """A key set that says that there are none is an answer, and not an outage."""
    desk.verify(token())
    desk.issuer.misbehaves = TROUBLES[trouble]
    desk.now += tokens.MAX_AGE
    with pytest.raises(KeysUnavailable):
        desk.verify(token())


def test_without_a_word_of_the_issuer_its_keys_are_good_for_a_day(desk: Desk) -> None:
    """A leaked key must not be good for ever because its issuer cannot be asked."""
    desk.verify(token())
    desk.issuer.misbehaves = TROUBLES["fails"]
    desk.now += tokens.GONE_AFTER - 1
    desk.verify(token())
    desk.now += 1
    with pytest.raises(KeysUnavailable):
        desk.verify(token())


def test_an_address_that_nobody_listens_at_is_trouble_too(made: Callable[..., Desk]) -> None:
    """So is none at all."""
    for url in ("http://127.0.0.1:1/keys", None):
        with pytest.raises(KeysUnavailable):
            made(url=url).verify(token())


def test_a_withdrawn_key_is_good_for_ten_minutes_at_most(desk: Desk) -> None:
    """However well it is known."""
    desk.verify(token())
    desk.issuer.keys = [published("ec-1", EC_KEY)]
    desk.now += tokens.MAX_AGE - 1
    desk.verify(token())
    desk.now += 1
    desk.refuses(token())


@pytest.mark.parametrize(
    "entry",
    [
        {"kty": "oct", "kid": "key", "k": "c2VjcmV0", "alg": "HS256"},
        {**published("key", RSA_KEY), "use": "enc"},
        published("key", RSA_KEY, alg="RS512"),
        published("key", RSA_KEY, alg="HS256"),
        published(None, RSA_KEY),
        published("key", rsa.generate_private_key(public_exponent=65537, key_size=1024)),  # noqa: S505
        published("key", ec.generate_private_key(ec.SECP384R1())),
        published("key", ec.generate_private_key(ec.SECP384R1()), alg="ES256"),
    ],
)
def test_a_key_that_is_not_for_this_signs_nothing(desk: Desk, entry: dict[str, Any]) -> None:
    """Shared secrets, keys for encryption, other algorithms, keys that can be broken; the others of the set are heeded."""
    desk.issuer.keys = [entry, published("ec-1", EC_KEY)]
    desk.verify(token(EC_KEY, "ec-1", "ES256"))
    assert set(desk.verifier._keys._keys) == {"ec-1"}


def test_whoever_hangs_up_does_not_end_the_fetch_for_the_others(desk: Desk) -> None:
    """It is one fetch for all of them."""
    asked, released = threading.Event(), threading.Event()

    async def later(_: Request) -> Response:
        asked.set()
        await asyncio.to_thread(released.wait)
        return JSONResponse({"keys": desk.issuer.keys})

    async def two() -> Visitor:
        first = asyncio.create_task(desk.verifier.verify(token()))
        await asyncio.to_thread(asked.wait)
        second = asyncio.create_task(desk.verifier.verify(token()))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        released.set()
        return await second

    desk.issuer.misbehaves = later
    assert asyncio.run(two()).organization_id == "org_1"
    assert desk.issuer.fetches == 1


def test_a_known_key_waits_for_nobody(desk: Desk) -> None:
    """While the issuer is asked for another one."""
    asked = threading.Event()

    async def silent(request: Request) -> Response:
        asked.set()
        return await hang(request)

    async def both() -> bool:
        unknown = asyncio.create_task(desk.verifier.verify(token(STRANGERS_KEY, "unknown")))
        await asyncio.to_thread(asked.wait)
        await desk.verifier.verify(token())
        return unknown.done()

    desk.verify(token())
    desk.issuer.misbehaves = silent
    assert not asyncio.run(both())
