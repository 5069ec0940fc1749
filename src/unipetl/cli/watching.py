"""Watching work that takes a while: a bar on a terminal, a line per phase elsewhere, and how to go on after Ctrl-C."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import typer

from unipetl.cli import screen
from unipetl.cli.boundary import INTERRUPTED

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from unipetl.experiment import CompareProgress, Progress
    from unipetl.experiment.progress import Listener
    from unipetl.search import SearchProgress

DOING = {
    "prepare": "preparing the data and the model",
    "attach": "attaching the method",
    "train": "training",
    "evaluate": "evaluating",
    "save": "saving",
    "done": "done",
}


@contextmanager
def resumable(hint: str) -> Iterator[None]:
    """Say ``hint`` when the work inside is interrupted, and end with exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        screen.say(f"interrupted. {hint}", style="yellow")
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def hushed() -> Iterator[None]:
    """Keep the libraries' own progress bars off the screen."""
    import datasets
    from transformers.utils import logging

    before = (logging.is_progress_bar_enabled(), datasets.are_progress_bars_disabled())
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if before[0]:
            logging.enable_progress_bar()
        if not before[1]:
            datasets.enable_progress_bars()


@contextmanager
def watched() -> Iterator[Callable[[str], Listener]]:
    """Give a function from a run's title to a listener that shows how the run goes on, on standard error."""
    terminal = sys.stderr.isatty()
    with hushed(), _bar() if terminal else nullcontext() as bar:
        yield lambda title: _on_bar(bar, title) if bar is not None else _in_lines(title)


@contextmanager
def compared() -> Iterator[Callable[[CompareProgress], None]]:
    """Give a listener that shows how a comparison goes on, on standard error."""
    if not sys.stderr.isatty():
        yield _compared_in_lines
        return
    with _bar() as bar:
        yield _compared_on_bars(bar)


@contextmanager
def searched() -> Iterator[Callable[[SearchProgress], None]]:
    """Give a listener that shows how a search goes on, on standard error."""
    with hushed(), _bar() if sys.stderr.isatty() else nullcontext() as bar:
        yield _searched_in_lines if bar is None else _searched_on_bars(bar)


def _searched_in_lines(event: SearchProgress) -> None:
    if event.state in ("finished", "pruned", "failed"):
        said = f": {event.message}" if event.message else "" if event.score is None else f", {event.score:.4f}"
        screen.say(f"[{event.done}/{event.total}] {event.state}: point {event.number}, {event.label}{said}")


def _searched_on_bars(bar: Bar) -> Callable[[SearchProgress], None]:
    whole = bar.add_task("points", total=None, loss="")
    running: dict[int, tuple[TaskID, Listener]] = {}

    def listen(event: SearchProgress) -> None:
        bar.update(whole, completed=event.done, total=event.total)
        if event.state == "started":
            line = bar.add_task(f"{event.label}: starting", total=None, loss="")
            running[event.number] = line, _update(bar, line, event.label)
        elif event.state == "running" and event.run is not None and event.number in running:
            running[event.number][1](event.run)
        elif event.number in running:
            bar.remove_task(running.pop(event.number)[0])
            bar.console.print(f"{event.state}: point {event.number}, {event.label}", markup=False, highlight=False)

    return listen


def _compared_in_lines(event: CompareProgress) -> None:
    if event.state in ("finished", "failed"):
        because = f": {event.message}" if event.message else ""
        counted = f"[{event.done + event.failed}/{event.total}]"
        screen.say(f"{counted} {event.state}: {event.task}, {event.label}, seed {event.seed}{because}")


def _compared_on_bars(bar: Bar) -> Callable[[CompareProgress], None]:
    whole = bar.add_task("runs", total=None, loss="")
    running: dict[str, tuple[TaskID, Listener]] = {}

    def listen(event: CompareProgress) -> None:
        bar.update(whole, completed=event.done + event.failed, total=event.total)
        title = f"{event.task}, {event.label}, seed {event.seed}"
        if event.state == "started":
            line = bar.add_task(f"{title}: starting", total=None, loss="")
            running[title] = line, _update(bar, line, title)
        elif event.state == "running" and event.run is not None and title in running:
            running[title][1](event.run)
        elif event.state in ("finished", "failed") and title in running:
            bar.remove_task(running.pop(title)[0])

    return listen


def _bar() -> Bar:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=screen.console(stderr=True),
        transient=True,
    )


def _on_bar(bar: Bar, title: str) -> Listener:
    line = bar.add_task(f"{title}: starting", total=None, loss="")
    update = _update(bar, line, title)

    def listen(progress: Progress) -> None:
        if progress.note:
            bar.console.print(f"{title}: {progress.note}", style="yellow", markup=False, highlight=False)
        update(progress)
        if progress.phase == "done":
            bar.remove_task(line)

    return listen


def _update(bar: Bar, line: TaskID, title: str) -> Listener:
    def listen(progress: Progress) -> None:
        description = f"{title}: {DOING[progress.phase]}"
        bar.update(line, description=description, completed=progress.step, total=progress.total)
        if "loss" in progress.values:
            bar.update(line, loss=f"loss {progress.values['loss']:.4f}")

    return listen


def _in_lines(title: str) -> Listener:
    phases: list[str] = []

    def listen(progress: Progress) -> None:
        if progress.note:
            screen.say(f"{title}: {progress.note}", style="yellow")
        if progress.phase not in phases:
            phases.append(progress.phase)
            steps = f", {progress.total} steps" if progress.phase == "train" and progress.total else ""
            screen.say(f"{title}: {DOING[progress.phase]}{steps}")

    return listen
