"""What stands below a command's help: how it is used."""


def examples(*lines: str) -> str:
    """Return the epilog that shows these command lines."""
    return "\n".join(("Examples:", *lines))
