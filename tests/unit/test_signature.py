"""What the SDK accepts, we accept, but for the differences named here; and nothing hostile gets further than a refusal."""

import base64
import hashlib
import hmac
import warnings
from collections.abc import Mapping
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
import standardwebhooks.webhooks
import time_machine
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from provisioning.errors import Refused
from provisioning.scalekit.signature import MAX_SIGNATURE_CHARACTERS, TOLERANCE, SignedHeaders, Verifier, sign

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # the SDK's models, on import
    from scalekit import ScalekitClient

NOW = 1_790_000_000
SDK = ScalekitClient.__new__(ScalekitClient)


def secret_of(key: bytes) -> str:
    return f"whsec_{base64.b64encode(key).decode()}"


SECRET = secret_of(bytes(range(32)))
OTHER = secret_of(bytes(range(32, 64)))
BODY = b'{"type": "organization.directory.user_created"}'
GOOD = sign(SECRET, "msg_1", NOW, BODY)

secrets = st.binary(min_size=24, max_size=64).map(secret_of)
ids = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=255)
offsets = st.integers(-TOLERANCE - 5, TOLERANCE + 5)
bodies = st.text().map(str.encode) | st.binary()
any_text = st.text(st.characters(exclude_categories=()))  # lone surrogates included


def headers(webhook_id: str = "msg_1", timestamp: str = str(NOW), signature: str = GOOD) -> dict[str, str]:
    return {"webhook-id": webhook_id, "webhook-timestamp": timestamp, "webhook-signature": signature}


def refusal(given_headers: Mapping[str, str], body: bytes = BODY, *keys: str, now: float = NOW) -> str | None:
    """Return the reason of our refusal, None when we accept. Whatever else is raised is an error of the test."""
    with time_machine.travel(now, tick=False):
        try:
            Verifier(keys or (SECRET,)).verify(SignedHeaders.parse(given_headers, now), body)
        except Refused as refused:
            return refused.reason
    return None


def sdk_accepts(given_headers: Mapping[str, str], body: bytes = BODY, secret: str = SECRET) -> bool:
    with time_machine.travel(NOW, tick=False):
        try:
            return bool(SDK.verify_webhook_payload(secret, given_headers, body))
        except Exception:
            return False


def flipped(entry: str, position: int) -> str:
    """The same signature but for one bit."""
    signature = bytearray(base64.b64decode(entry.removeprefix("v1,")))
    signature[position % 32] ^= 1 << position % 8
    return f"v1,{base64.b64encode(signature).decode()}"


# One well-formed v1 entry: both agree.


@given(secrets, ids, offsets, bodies)
def test_a_genuine_signature_is_accepted_exactly_when_the_sdk_accepts_it(secret: str, webhook_id: str, offset: int, body: bytes) -> None:
    """Whatever the id, the age and the body; a body that is not UTF-8 has no signature in the SDK's terms either."""
    signed_body = body if _is_utf8(body) else b""
    offered = headers(webhook_id, str(NOW + offset), sign(secret, webhook_id, NOW + offset, signed_body))
    accepted = refusal(offered, body, secret) is None
    assert accepted == sdk_accepts(offered, body, secret) == (_is_utf8(body) and abs(offset) <= TOLERANCE)


@given(secrets, secrets, ids, ids, offsets, offsets, st.text(), st.text(), st.none() | st.integers(0, 255))
def test_what_was_signed_and_what_arrived_must_be_the_same(
    signing: str,
    verifying: str,
    signed_id: str,
    sent_id: str,
    signed_at: int,
    sent_at: int,
    signed_text: str,
    sent_text: str,
    bit: int | None,
) -> None:
    """Another secret, id, time, body or bit: both refuse. All the same: both accept."""
    entry = sign(signing, signed_id, NOW + signed_at, signed_text.encode())
    offered = headers(sent_id, str(NOW + sent_at), entry if bit is None else flipped(entry, bit))
    assert (refusal(offered, sent_text.encode(), verifying) is None) == sdk_accepts(offered, sent_text.encode(), verifying)


@given(st.data())
def test_one_change_to_a_genuine_request_is_noticed_by_both(data: st.DataObject) -> None:
    """The law above mostly compares strangers; here exactly one thing differs."""
    changed = data.draw(
        st.sampled_from(
            [
                (headers(webhook_id="msg_2"), BODY, SECRET),
                (headers(timestamp=str(NOW + 1)), BODY, SECRET),
                (headers(signature=flipped(GOOD, data.draw(st.integers(0, 255)))), BODY, SECRET),
                (headers(), BODY + b" ", SECRET),
                (headers(), BODY[:-1], SECRET),
                (headers(), BODY, OTHER),
            ]
        )
    )
    assert refusal(*changed) == "signature"
    assert not sdk_accepts(*changed)


def test_signing_is_what_the_standard_says() -> None:
    """HMAC-SHA256 over `{id}.{timestamp}.{raw body}`: https://www.standardwebhooks.com."""
    digest = hmac.new(bytes(range(32)), b"msg_1.%d.%b" % (NOW, BODY), hashlib.sha256).digest()
    assert f"v1,{base64.b64encode(digest).decode()}" == GOOD


def test_signing_does_not_depend_on_the_local_time() -> None:
    """A time is seconds since 1970, wherever the machine stands."""
    with time_machine.travel(datetime(2026, 9, 21, tzinfo=ZoneInfo("Asia/Kathmandu"))):
        assert sign(SECRET, "msg_1", NOW, BODY) == GOOD


def test_a_signed_body_need_not_be_json() -> None:
    """Signed but unreadable is another failure than forged: it is kept."""
    assert refusal(headers(signature=sign(SECRET, "msg_1", NOW, b"{broken")), b"{broken") is None


# Several entries, several secrets.

genuine = st.sampled_from([GOOD, sign(OTHER, "msg_1", NOW, BODY)])
forged = st.binary(min_size=32, max_size=32).map(lambda raw: f"v1,{base64.b64encode(raw).decode()}")
other_version = (genuine | forged).map(lambda entry: entry.replace("v1,", "v2,", 1))
garbage = st.sampled_from(
    ["", ",", "v1", "v1,", "v1,a", "v1,====", "v1a,x", "v2,a", ",,,", GOOD + ",", f"{GOOD}=", GOOD.lower()]
) | any_text.map(lambda text: text.replace(" ", ""))


@given(
    st.lists(genuine.map(lambda entry: (entry, True)) | (forged | other_version | garbage).map(lambda entry: (entry, False)), max_size=8)
)
def test_a_webhook_is_accepted_exactly_when_one_well_formed_v1_entry_verifies(entries: list[tuple[str, bool]]) -> None:
    """Under one of our secrets, whatever stands beside it and in whatever order."""
    offered = headers(signature=" ".join(entry for entry, _ in entries))
    assert (refusal(offered, BODY, SECRET, OTHER) is None) == any(is_genuine for _, is_genuine in entries)


@given(st.lists(genuine | forged | other_version, min_size=1, max_size=8))
def test_of_well_formed_entries_the_sdk_accepts_the_same(entries: list[str]) -> None:
    """Asked once for each secret, since it takes only one."""
    offered = headers(signature=" ".join(entries))
    assert (refusal(offered, BODY, SECRET, OTHER) is None) == any(sdk_accepts(offered, BODY, secret) for secret in (SECRET, OTHER))


def test_a_flood_of_signatures_costs_one_hmac_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unauthenticated sender must not choose how much we compute."""
    calls = 0
    real = standardwebhooks.webhooks.hmac_data

    def counted(key: bytes, data: bytes) -> bytes:
        nonlocal calls
        calls += 1
        return real(key, data)

    monkeypatch.setattr(standardwebhooks.webhooks, "hmac_data", counted)
    many = " ".join(flipped(GOOD, position) for position in range(160))
    assert refusal(headers(signature=many), BODY, SECRET, OTHER) == "signature"
    assert calls == 2


# Each difference from the SDK, with its reason.


def test_difference_a_malformed_entry_does_not_hide_a_good_one() -> None:
    """The SDK stops at the first entry that is not base64, and would lose events while a secret is rotated."""
    for malformed in ("v1,a", "v2,a", GOOD[:-1], GOOD[:-2] + "="):
        offered = headers(signature=f"{malformed} {GOOD}")
        assert refusal(offered) is None
        assert not sdk_accepts(offered)


def test_difference_an_entry_has_two_parts() -> None:
    """The SDK ignores what follows a second comma; the standard knows no such entry."""
    offered = headers(signature=f"{GOOD},anything")
    assert refusal(offered) == "malformed"
    assert sdk_accepts(offered)


@pytest.mark.parametrize("other", ["\t", "\n", "\xa0", ",", ""])
def test_only_a_space_separates_entries(other: str) -> None:
    """As the standard says; to both of us the rest is one entry, which is none."""
    offered = headers(signature=f"v2,x{other}{GOOD}")
    assert refusal(offered) == "malformed"
    assert not sdk_accepts(offered)


@pytest.mark.parametrize("signature", [GOOD[:9] + "!" + GOOD[9:], GOOD + "=", f"{GOOD}AAAA", GOOD[:9] + "\n" + GOOD[9:]])
def test_difference_base64_is_not_read_leniently(signature: str) -> None:
    """Python's decoder skips what is no base64 and stops at the padding, so the SDK takes endlessly many spellings of one signature."""
    assert refusal(headers(signature=signature)) == "malformed"
    assert sdk_accepts(headers(signature=signature))


@pytest.mark.parametrize(
    "timestamp",
    [
        f"{NOW}.0",
        f"{NOW}.9",
        f"{NOW:.3e}",
        f"+{NOW}",
        f" {NOW} ",
        f"0{NOW}",
        f"{NOW:_}",
        str(NOW).translate({48 + n: 0x660 + n for n in range(10)}),
        "1" + str(NOW)[1:].translate({48 + n: 0x660 + n for n in range(10)}),
    ],
)
def test_difference_a_timestamp_is_plain_digits(timestamp: str) -> None:
    """The SDK reads it with float() and signs the number; the standard signs the header's text, which is then another one."""
    assert refusal(headers(timestamp=timestamp)) == "malformed"
    assert sdk_accepts(headers(timestamp=timestamp))


@pytest.mark.parametrize("webhook_id", ["msg 1", "msg_é", "msg\t1", "\x7f", "m" * 256])
def test_difference_an_id_is_up_to_255_visible_ascii_characters(webhook_id: str) -> None:
    """It is a key of our database, and shown to operators; Scalekit's are short and plain."""
    offered = headers(webhook_id, signature=sign(SECRET, webhook_id, NOW, BODY))
    assert refusal(offered) == "malformed"
    assert sdk_accepts(offered)
    for fits in ("m" * 255, "".join(map(chr, range(33, 127)))):
        assert refusal(headers(fits, signature=sign(SECRET, fits, NOW, BODY))) is None


def test_difference_the_signature_header_has_a_bound() -> None:
    """The SDK decodes any number of entries; we look at no more than fit into the bound, which is far beyond any rotation."""
    fits = " ".join(["v2,x"] * ((MAX_SIGNATURE_CHARACTERS - len(GOOD)) // 5) + [GOOD])
    too_long = "v1 " * 3000 + GOOD
    assert len(fits) <= MAX_SIGNATURE_CHARACTERS < len(too_long)
    assert refusal(headers(signature=fits)) is None
    assert refusal(headers(signature=too_long)) == "malformed"
    assert sdk_accepts(headers(signature=too_long))


def test_difference_a_secret_may_lack_its_padding() -> None:
    """The library adds it, and the key is the same; the SDK refuses every webhook then."""
    bare = SECRET.rstrip("=")
    assert bare != SECRET
    assert refusal(headers(), BODY, bare) is None
    assert not sdk_accepts(headers(), BODY, bare)


def test_difference_several_secrets_count() -> None:
    """While one is rotated; the SDK takes one."""
    assert refusal(headers(), BODY, OTHER, SECRET) is None


# The reasons, and who is asked first.


@pytest.mark.parametrize("absent", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_header_that_is_absent_or_empty_is_missing(absent: str) -> None:
    """Each of the three."""
    assert refusal({name: value for name, value in headers().items() if name != absent}) == "missing"
    assert refusal({**headers(), absent: ""}) == "missing"


@pytest.mark.parametrize(("offset", "reason"), [(-301, "expired"), (-300, None), (300, None), (301, "expired")])
def test_the_tolerance_is_300_seconds_both_ways(offset: int, reason: str | None) -> None:
    """Both included."""
    assert refusal(headers(timestamp=str(NOW + offset), signature=sign(SECRET, "msg_1", NOW + offset, BODY))) == reason


def test_the_tolerance_is_not_rounded() -> None:
    """Our clock has fractions, as the library's has."""
    assert refusal(headers(), now=NOW + 300.5) == "expired"
    assert refusal(headers(), now=NOW - 300.5) == "expired"


def test_headers_are_judged_without_the_body() -> None:
    """What can be refused by them alone costs no reading."""
    for bad in (headers(webhook_id=""), headers(timestamp="soon"), headers(timestamp=str(NOW - 999)), headers(signature="v1,x")):
        with pytest.raises(Refused):
            SignedHeaders.parse(bad, NOW)
    for no_entry in (GOOD.replace("v1,", "v2,"), GOOD.replace("v1,", "v1a,"), GOOD.replace(GOOD[9:11], "-_")):
        assert refusal(headers(signature=no_entry)) == "malformed"


def test_a_timestamp_has_at_most_twelve_digits() -> None:
    """Python refuses to read the longest as numbers."""
    for digits, reason in ((12, "expired"), (13, "malformed"), (5000, "malformed")):
        assert refusal(headers(timestamp="9" * digits)) == reason


def test_a_body_that_is_not_utf8_is_refused() -> None:
    """UTF-8 is what is signed; a lone surrogate, too, is none."""
    assert refusal(headers(), b"\xff") == "encoding"
    assert refusal(headers(), b"\xed\xa0\x80") == "encoding"


def test_of_a_header_that_was_sent_twice_the_first_counts() -> None:
    """As Starlette's mapping says, so no proxy that appends one can change what is judged."""
    name = b"webhook-signature"
    others = [(key.encode(), value.encode()) for key, value in headers().items() if key != name.decode()]
    good, bad = (name, GOOD.encode()), (name, flipped(GOOD, 0).encode())
    assert refusal(Headers(raw=[*others, good, bad])) is None
    assert refusal(Headers(raw=[*others, bad, good])) == "signature"


def test_without_secrets_nothing_is_accepted() -> None:
    """An empty list opens nothing."""
    with time_machine.travel(NOW, tick=False), pytest.raises(Refused):
        Verifier(()).verify(SignedHeaders.parse(headers(), NOW), BODY)


# Nothing but Refused ever comes out.

numbers = st.floats().map(str) | st.integers().map(str) | st.sampled_from(["nan", "inf", "1e999", "9" * 5000, "-1", str(NOW)])
names = st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature"])


@given(st.dictionaries(names, any_text | numbers | garbage | genuine), st.binary())
def test_hostile_headers_are_refused_and_nothing_else_happens(hostile: dict[str, str], body: bytes) -> None:
    """Text that no HTTP server would hand on is among them. `refusal` lets every other exception through."""
    refusal(hostile, body)


@given(any_text, st.integers(), st.lists(any_text | forged | garbage, max_size=4), st.binary())
def test_the_verifier_trusts_no_parser(webhook_id: str, timestamp: int, signatures: list[str], body: bytes) -> None:
    """Its second step refuses whatever the first might let through."""
    with pytest.raises(Refused):
        Verifier((SECRET, OTHER)).verify(SignedHeaders(webhook_id, timestamp, tuple(signatures)), body)


REFUSALS = {
    "The headers webhook-id, webhook-timestamp and webhook-signature are all needed.": {"webhook-id": "canary"},
    "webhook-id is not 1 to 255 visible ASCII characters.": headers(webhook_id="canary é"),
    "webhook-timestamp is not a whole number of seconds.": headers(timestamp="canary"),
    "webhook-timestamp is more than 300 seconds from this service's clock.": headers("canary", timestamp="1"),
    "webhook-signature is longer than 8192 characters.": headers(signature="canary" * 2000),
    "webhook-signature has no entry of the form v1,<base64 of 32 bytes>.": headers(signature="canary"),
    "No signature verifies under a secret of this service.": headers(webhook_id="canary"),
    "The body is not UTF-8.": headers(),
}


@pytest.mark.parametrize("message", REFUSALS)
def test_a_refusal_quotes_nothing(message: str) -> None:
    """Its message is one of a few fixed ones, fit for a log and for an answer."""
    body = b"canary\xff" if message == "The body is not UTF-8." else BODY
    with time_machine.travel(NOW, tick=False), pytest.raises(Refused) as caught:
        Verifier((SECRET,)).verify(SignedHeaders.parse(REFUSALS[message], NOW), body)
    assert str(caught.value) == message


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True
