"""A file of accounts says what it says, however it was saved; a line that cannot be read costs itself and no other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.cli.sheet import Unread, read
from provisioning.errors import ConfigurationError
from provisioning.imports import Account

HEADER = "organization,email,application_id"
ANN = Account(2, "org_1", "ann@x.com", "42")


def organization_id(given_: str) -> str:
    """As the command has it: here, an id."""
    if not given_.startswith("org_"):
        raise ConfigurationError("That is no organization.")
    return given_


def told(text: str | bytes) -> list[Account | Unread]:
    """What the file says."""
    return list(read(text.encode() if isinstance(text, str) else text, organization_id))


def why(line: str) -> str:
    """Why this line tells of no account; the one below it does."""
    unread, account = told(f"{HEADER}\n{line}\norg_1,ann@x.com,42\n")
    assert isinstance(unread, Unread)
    assert (unread.line, account) == (2, Account(3, "org_1", "ann@x.com", "42"))
    return unread.why


@pytest.mark.parametrize(
    "text",
    [
        f"{HEADER}\norg_1,ann@x.com,42\n",
        f"\ufeff{HEADER}\r\norg_1,ann@x.com,42",
        "Application_ID ; EMAIL;organization\n42;ann@x.com;org_1",
        '"email","organization","application_id"\r"ann@x.com","org_1","42"\r',
        'email, application_id, organization\n"ann@x.com", "42", org_1',
        "organization;email;application_id\n \norg_1 ; ann@x.com ; 42 \n".replace(" \n", "", 1),
    ],
    ids=["plain", "from Windows", "semicolons", "quoted", "spaces", "spaces around"],
)
def test_it_is_read_however_it_was_saved(text: str) -> None:
    """Columns in any order and case, with a mark or without, with any line ends, commas or semicolons between."""
    assert told(text) == [ANN]


@pytest.mark.parametrize("email", ["o'brien+tag@x.co.uk", "ünï@exämple.com", "a.b_c-d@localhost", "ann/team=x@x.com"])
def test_an_address_may_have_what_addresses_have(email: str) -> None:
    """Nobody is left for an odd one."""
    [account] = told(f"{HEADER}\norg_1,{email},42\n")
    assert isinstance(account, Account)
    assert account.email == email


def test_a_name_and_whether_an_account_is_active_may_be_said() -> None:
    """Where nothing is said, it has no name, and is."""
    lines = ["", 'org_1,a@x.com,1,"Doe; Jane ""JD""",TRUE', "org_1,b@x.com,2,,false", "org_1,c@x.com,3,Ö,", "org_1,d@x.com,4,D,yes"]
    *found, unread = told(f"{HEADER},name,active{chr(10).join(lines)}")
    assert [(each.line, each.name, each.active) for each in found if isinstance(each, Account)] == [
        (2, 'Doe; Jane "JD"', True),
        (3, None, False),
        (4, "Ö", True),
    ]
    assert unread == Unread(5, "What is active is true or false.")


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("org_1,ann@x.com", "3 values"),
        ("org_1,ann@x.com,42,", "3 values"),
        ("here,ann@x.com,42", "no organization"),
        ("org_1,,42", "e-mail is not blank"),
        ("org_1,ann,42", "@"),
        ("org_1,@x.com,42", "@ inside"),
        ("org_1,ann@,42", "@ inside"),
        ("org_1,ann@ann@x.com,42", "one address"),
        ("org_1,ann@x.com bob@x.com,42", "one address"),
        ("org_1,ann @x.com,42", "white space"),
        ("org_1,ann\u00a0@x.com,42", "white space"),
        ("org_1,Ann <ann@x.com>,42", "<"),
        ("org_1,<ann@x.com>,42", "<"),
        ("org_1,ann@x.com;,42", ";"),
        ('org_1,"""ann""@x.com",42', "quotes"),
        ("org_1,ann@x.com,", "application id is not blank"),
        ("org_1,ann@x.com,4\0002", "control"),
        ("org_1,ann\0@x.com,42", "control"),
        ("org_1,ann@x.com,4\u20282", "line breaks"),
        (f"org_1,{'a' * 255}@x.com,42", "255 bytes"),
        (f"org_1,ann@x.com,{'é' * 128}", "255 bytes"),
        (f"org_1,ann@x.com,{'9' * 200_000}", "far too long"),
        ('org_1,"ann@x.com,42', "quote"),
        ('org_1,"ann"@x.com,42', "quote"),
    ],
)
def test_a_line_that_cannot_be_read_says_why_unquoted(line: str, word: str) -> None:
    """And the next one is read."""
    assert word in why(line)
    assert "x.com" not in why(line)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "lacks organization, email, application_id"),
        ("organization,application_id\n", "lacks email."),
        ("organization\temail\tapplication_id\n", "lacks"),
        ('organization,"email,application_id\n', "lacks"),
        (f"{HEADER},actve\n", "'actve'"),
        (f"{HEADER},email\n", "'email'"),
        (f"{HEADER}\nü\n".encode("latin-1"), "UTF-8"),
        (f"{HEADER}\n".encode("utf-16"), "UTF-8"),
    ],
)
def test_what_is_no_such_file_is_refused(text: str | bytes, words: str) -> None:
    """Also a misspelt column: what it says must not go unheard."""
    with pytest.raises(ConfigurationError, match=words):
        told(text)


@given(rest=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_no_file_is_too_odd(rest: bytes) -> None:
    """Whatever stands below the header: each line that is not blank is an account, or is told of."""
    try:
        found = told(f"{HEADER}\n".encode() + rest)
    except ConfigurationError as refused:
        assert "UTF-8" in str(refused)  # noqa: PT017  # or it is read
    else:
        lines = rest.decode().replace("\r\n", "\n").replace("\r", "\n").split("\n")
        assert [each.line for each in found] == [number for number, line in enumerate(lines, 2) if line.strip()]
