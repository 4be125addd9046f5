"""The next item is on its way while one is worked on."""

from collections.abc import Iterator
from contextlib import contextmanager
from queue import Full, Queue
from threading import Event, Thread
from typing import TypeVar

T = TypeVar("T")

_PATIENCE = 0.1  # seconds after which a full queue is asked whether anybody still reads from it


@contextmanager
def ahead(items: Iterator[T], most: int) -> Iterator[Iterator[T]]:
    """`items`, made in a thread of their own, up to `most` in advance. What goes wrong there is raised here, in its place."""
    waiting: Queue[tuple[T] | BaseException | None] = Queue(most)
    left = Event()

    def put(item: tuple[T] | BaseException | None) -> bool:
        while not left.is_set():
            try:
                waiting.put(item, timeout=_PATIENCE)
            except Full:
                continue
            return True
        return False

    def make() -> None:
        try:
            for item in items:
                if not put((item,)):
                    return
            put(None)
        except BaseException as error:  # whatever it is, it belongs to whoever reads
            put(error)

    def read() -> Iterator[T]:
        while (item := waiting.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item[0]

    Thread(target=make, name="listing", daemon=True).start()
    try:
        yield read()
    finally:
        left.set()
