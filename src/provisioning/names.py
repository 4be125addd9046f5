"""Names that people give to what the application calls its own: to be stored, indexed, compared exactly and shown in a line. Pure."""

from unicodedata import category

MAX_BYTES = 255
_UNSEEN = {"Cc", "Cs", "Zl", "Zp"}  # control characters, halves of characters, line and paragraph separators


def fault(name: str) -> str | None:
    """What `name` would have to be to be one, in words that do not quote it; None where it is one."""
    if any(category(character) in _UNSEEN for character in name):
        return "has no control characters, line breaks or lone surrogates"
    if not name or name != name.strip():
        return "is not blank, and has no white space before or after it"
    if len(name.encode()) > MAX_BYTES:
        return f"has at most {MAX_BYTES} bytes in UTF-8"
    return None
