"""What a page says first after something was done. An address carries the code alone: nobody can have a page say what they like."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Notice:
    """A sentence, and whether it is a refusal."""

    text: str
    refused: bool = False


NOTICES = {
    "logged-out": Notice("You are logged out."),
    "not-kept": Notice("The browser has not kept the login: it keeps it over https only, or on this machine, at 127.0.0.1.", True),
    "run-started": Notice("The run has been asked for. This page follows it."),
    "run-joined": Notice("A run of this kind was under way already: this is it."),
    "run-approved": Notice("Approved. The directories are read again, and what is still gone from them is removed."),
    "run-cancelled": Notice("Cancelled. What the run had changed by then stays."),
    "number-differs": Notice("That is not the number of people that would be deactivated. Nothing was approved.", True),
    "retried": Notice("It is told again, with what followed about the same people."),
    "nothing-retried": Notice("There is no such dead letter any more: somebody was quicker.", True),
    "replayed": Notice("Replayed: below is what became of it."),
    "dismissed": Notice("Dismissed: it no longer counts as needing attention."),
}
