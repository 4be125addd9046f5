"""Two processes that do the same at once: a real race, over connections, memory and locks of their own."""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from threading import BrokenBarrierError
from typing import Self, TypeVar

SIZE = 2
PATIENCE_SECONDS = 120
# By the one process from which those of every crew are forked: it takes a second, and each of them would spend it.
IMPORTED = ["alembic.command", "psycopg", "pytest", "provisioning.inbox", "sqlalchemy.dialects.postgresql.psycopg"]

Argument = TypeVar("Argument")
Result = TypeVar("Result")

_line: Barrier


class Crew:
    """Processes that wait for work."""

    def __init__(self, executor: ProcessPoolExecutor, line: Barrier) -> None:
        self._executor = executor
        self._line = line

    @classmethod
    @contextmanager
    def assembled(cls) -> Iterator[Self]:
        """A crew, gone at the end."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(IMPORTED)
        line = context.Barrier(SIZE)
        with ProcessPoolExecutor(SIZE, context, _join, (line,)) as executor:
            yield cls(executor, line)

    def run(self, work: Callable[[Argument], Result], *arguments: Argument) -> list[Result]:
        """Call `work`, a module's function, with each of two arguments, each in a process; returns its results, or raises."""
        assert len(arguments) == SIZE
        self._line.reset()
        futures = [self._executor.submit(_run, work, argument) for argument in arguments]
        wait(futures, PATIENCE_SECONDS)
        for failure in (future.exception(0) for future in futures):
            if failure and not isinstance(failure, BrokenBarrierError):  # else the other one says why
                raise failure
        return [future.result(0) for future in futures]


def line_up() -> None:
    """Return when all of the crew have called this: they go on together."""
    _line.wait(PATIENCE_SECONDS)


def _join(line: Barrier) -> None:
    global _line  # noqa: PLW0603 # a process is given its barrier when it is born, and not later
    _line = line


def _run(work: Callable[[Argument], Result], argument: Argument) -> Result:
    try:
        return work(argument)
    except BaseException:
        _line.abort()  # nobody has to wait for this one
        raise
