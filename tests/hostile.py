"""Bodies that somebody signs whose program is broken, or who wishes us ill: written as text, since no writer of JSON would write them."""

import json
from itertools import count

from factories import ORGANIZATION, START
from provisioning.events import rfc3339

LARGEST = 2**20
_numbers = count(1)


def body(member: str = "", *, kind: str = "organization.directory.user_updated", subject: str = "du_1", **envelope: str) -> bytes:
    """An event newer than all before it, with this `member` of its data, and members of its `envelope`, as they are to be spelled."""
    number = next(_numbers)
    said = {
        "id": json.dumps(f"evt_{10**6 + number}"),
        "type": json.dumps(kind),
        "occurred_at": json.dumps(rfc3339(START * 10**9 + number)),
        "environment_id": '"env_1"',
        "organization_id": json.dumps(ORGANIZATION),
        "data": f'{{"id": {json.dumps(subject)}{", " * bool(member)}{member}}}',
        **envelope,
    }
    return f"{{{', '.join(f'{json.dumps(name)}: {value}' for name, value in said.items())}}}".encode()


def nested(depth: int) -> str:
    """Lists and objects in one another, the innermost a list."""
    pairs, more = divmod(depth - 1, 2)
    return "[" * more + '{"a":[' * pairs + "[]" + "]}" * pairs + "]" * more


def full(member: str, **said: str) -> bytes:
    """A body as large as may be, where the member says `FILL`."""
    content = body(member, **said)
    return content.replace(b"FILL", b"x" * (LARGEST - len(content) + len(b"FILL")))


# What is JSON, and what a person may have as an attribute.
MEMBERS = {
    "a fraction that is none": '"x": -0.0',
    "the largest number": '"x": 1.7976931348623157e308',
    "the smallest number": '"x": 5e-324',
    "a number beyond 53 bits": '"x": 9007199254740993',
    "a number beyond 64 bits": '"x": 18446744073709551617',
    "a number of 300 digits": f'"x": {"9" * 300}',
    "a number that is nothing": f'"x": 0.{"0" * 4000}1',
    "depth": f'"x": {nested(62)}',
    "many members": ", ".join(f'"x{number}": {number}' for number in range(2000)),
    "many items": f'"x": [{"0," * 5_000}0]',
    "a member twice": '"x": "first", "x": "second"',
    "a member twice, one spelled otherwise": '"x": "first", "\\u0078": "second"',
    "a known member twice": '"given_name": 5, "given_name": "Ada"',
    "an empty name": '"": "x"',
    "names of JavaScript": '"__proto__": {"admin": true}, "constructor": {"prototype": {}}, "toString": null',
    "names of ours": '"active_": false, "registers": {}, "deleted": true, "user_id": "usr_1", "organization_id": "org_2", "$ref": "#/x"',
    "a long name": f'"{"n" * 20_000}": 1',
    "a name of odd letters": '"\\ud83d\\ude00\\u202e\\u0301\\ufeff": "x"',
    "markup": '"name": "<img src=x onerror=alert(1)>{{7*7}}${7*7}", "x": "</script><!--"',
    "SQL": '"name": "\'; DROP TABLE users; --", "x": "%_\\\\"',
    "control characters": '"name": "\\u0001\\u001b[31m\\u007f\\u0085\\r\\n", "x": "\\u0008"',
    "odd letters": '"name": "\\u202eadA\\u202c \\u0301\\u200d\\ufffe\\uffff\\ufeff\\u2028", "x": "\\udbff\\udfff"',
    "odd letters, as they are": '"x": "\u202e\U0010ffff\ufffe\u2028\u0085\x7f"',
    "an address that is none": '"email": "@@<>\\"\\u00e9 \\u202e"',
    "much white space": f'"x":{" " * 50_000}1',
}
# And what is not: each with the words of why.
_NUMBER = "number that no double can hold"
NOT_JSON: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "not JSON"),
    "white space": (b" \n\t", "not JSON"),
    "half a document": (body()[:-9], "not JSON"),
    "two documents": (body() * 2, "not JSON"),
    "a byte order mark": (b"\xef\xbb\xbf" + body(), "not JSON"),
    "single quotes": (body().replace(b'"', b"'"), "not JSON"),
    "a comma too many": (body('"x": [1,]'), "not JSON"),
    "a comment": (body('"x": 1 /* one */'), "not JSON"),
    "NUL, as it is": (body('"x": "\x00"'), "not JSON"),
    "a line's end, as it is": (body('"x": "a\nb"'), "not JSON"),
    "an escape that is none": (body('"x": "\\x41"'), "not JSON"),
    "NaN": (body('"x": NaN'), "not JSON"),
    "infinity": (body('"x": Infinity'), "not JSON"),
    "minus infinity": (body('"x": [-Infinity]'), "not JSON"),
    "a number that begins with 0": (body('"x": 01'), "not JSON"),
}
NOT_AN_EVENT: dict[str, tuple[bytes, str]] = {
    "null": (b"null", "object"),
    "a list": (b"[]", "object"),
    "a number": (b"5", "object"),
    "an empty object": (b"{}", "type"),
    "a depth of 65": (body(f'"x": {nested(63)}'), "nested more than 64"),
    "a depth of 200": (body(f'"x": {nested(198)}'), "nested more than 64"),
    "a depth of 900": (body(f'"x": {nested(898)}'), "nested more than 64"),
    "a depth of 10,000": (body(f'"x": {nested(10_000)}'), "nested more than 64"),
    "a depth of 100,000": (b"[" * 100_000 + b"]" * 100_000, "nested more than 64"),
    "half of a depth": (b'{"data":' * 100_000, "nested more than 64"),
    "1e400": (body('"x": 1e400'), _NUMBER),
    "-1e400": (body('"x": [{"y": -1e400}]'), _NUMBER),
    "4,000 digits": (body(f'"x": {"9" * 4000}'), _NUMBER),
    "500,000 digits": (body(f'"x": -{"9" * 500_000}'), _NUMBER),
    "NUL": (body('"x": "a\\u0000"'), "NUL"),
    "NUL in a name": (body('"\\u0000": 1'), "NUL"),
    "NUL in the id": (body(subject="\x00"), "NUL"),
    "a lone surrogate": (body('"x": "\\ud800"'), "surrogate"),
    "surrogates the wrong way round": (body('"x": "\\udc00\\ud800"'), "surrogate"),
    "a lone surrogate in a name": (body('"\\udfff": 1'), "surrogate"),
    "an envelope twice": (body(data="5"), "data"),
    "data without an id": (body(data='{"email": "x"}'), "data.id"),
    "an id of a megabyte": (body(subject="x" * (LARGEST - 400)), "data.id"),
    "an organization of a megabyte": (body(organization_id=f'"{"x" * (LARGEST - 400)}"'), "organization_id"),
    "a number for a name": (body('"given_name": 5'), "data.given_name"),
    "words for active": (body('"active": "false"'), "data.active"),
    "groups of something else": (body('"groups": [{"id": ["x"]}]'), "data.groups"),
    "the far future": (body(occurred_at='"2262-01-01T00:00:00Z"'), "future"),
    "the distant past": (body(occurred_at='"0001-01-01T00:00:00Z"'), "occurred_at"),
}
# What may stand anywhere in a body.
PIECES = [
    *(member.split(":", 1)[1].strip() for member in MEMBERS.values() if len(member) < 500),
    *(content.split(b'"x": ')[-1].rstrip(b"}").decode() for content, _ in (NOT_JSON | NOT_AN_EVENT).values() if len(content) < 10_000),
    *('"type": "x",', '"id": null,', '"data": {"id": "du_1"},', '"organization_id": {},', '"active": null,', '"groups": [null, {}],'),
    *('"', "\\", "{", "}", "[", "]", ",", ":", "null", "-1", '""', "\x1f", "\ufeff"),
]
