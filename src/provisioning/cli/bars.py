"""How far something is, on a terminal: of runs a bar for each, of people listed. Elsewhere nothing."""

from collections.abc import Collection
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from provisioning.cli.terminal import plain, stderr
from provisioning.db.runs import Run


def progress() -> Progress:
    """What of something is done, and when all of it will be; shown inside a `with`, and gone after it."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    return Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal)


class Bars:
    """Shown inside a `with`, and gone after it."""

    def __init__(self) -> None:
        self._progress = progress()
        self._tasks: dict[str, TaskID] = {}
        self._whole: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._progress.stop()

    def show(self, under_way: Collection[Run], ended: Collection[Run], to_come: int) -> None:
        """Draw a bar for each run that is under way, and one for all of them if there are several."""
        for run_id in self._tasks.keys() - {run.id for run in under_way}:
            self._progress.remove_task(self._tasks.pop(run_id))
        if self._whole is None and (to_come or len(under_way) > 1):
            self._whole = self._progress.add_task("organizations")
        if self._whole is not None:
            self._draw(self._whole, len(ended), len(under_way) + len(ended) + to_come)
        for run in under_way:
            if run.id not in self._tasks:
                self._tasks[run.id] = self._progress.add_task(f"{plain(run.organization_id)}, people", total=None)
            self._draw(self._tasks[run.id], run.listed_users, run.expected_users)

    def _draw(self, task_id: TaskID, completed: int, total: int | None) -> None:
        if completed < self._progress.tasks[self._progress.task_ids.index(task_id)].completed:
            self._progress.reset(task_id)  # a run lists again, to be sure who is missing, or since it was taken over
        self._progress.update(task_id, completed=completed, total=total)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        rate = task.finished_speed or task.speed
        return Text(f"{rate:.0f}/s" if rate else "", style="progress.data.speed")
