"""Shows a person how far a run is: bars on a terminal, plain lines elsewhere, on the main process only.

Trainer -> Reporter.line, Reporter.track -> stderr
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

_PLAIN_INTERVAL_S = 30.0  # how often a long epoch prints a line where there is no bar


class _ImagesPerSecond(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.fields['images'] / task.elapsed:.0f} images/s" if task.elapsed else "")


class Advance:
    """Moves one bar; where there is no bar, prints a line now and then.

    Args:
        console: where lines are printed.
        description: what is done, such as `Epoch 1 of 2`.
        steps: the number of steps until it is done.
        bar: the bar; None where the console is no terminal.
    """

    def __init__(self, console: Console, description: str, steps: int, bar: Progress | None) -> None:
        self.console = console
        self.description = description
        self.steps = steps
        self.done = 0
        self.images = 0
        self.started = self.last_line = time.monotonic()
        self.bar = bar
        self.task = bar.add_task(description, total=steps, images=0, note="") if bar is not None else None

    def __call__(self, images: int, note: str = "") -> None:
        """Moves by one step.

        Args:
            images: the number of images in the step.
            note: a few words to show beside the bar.
        """
        self.done += 1
        self.images += images
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, advance=1, images=self.images, note=note)
        elif not self.console.quiet and time.monotonic() - self.last_line >= _PLAIN_INTERVAL_S:
            self.last_line = time.monotonic()
            elapsed = self.last_line - self.started
            left = elapsed / self.done * (self.steps - self.done)
            rate = self.images / elapsed
            text = (
                f"{self.description}: step {self.done} of {self.steps}, {rate:.0f} images/s, {left:.0f} s left {note}"
            )
            self.console.print(text.rstrip(), highlight=False, soft_wrap=True)


class Reporter:
    """Prints on the main process, and is silent on all others.

    Args:
        active: whether this is the main process.
        console: where to print; standard error by default.
    """

    def __init__(self, *, active: bool = True, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, quiet=not active)

    def line(self, text: str) -> None:
        """Prints one line of text."""
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)

    @contextmanager
    def track(self, description: str, steps: int) -> Iterator[Advance]:
        """Shows a bar while the block runs; yields the `Advance` that the block calls after each step."""
        if self.console.is_terminal and not self.console.quiet:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=30),
                MofNCompleteColumn(),
                _ImagesPerSecond(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
            )
            with Progress(*columns, console=self.console, transient=True) as bar:
                yield Advance(self.console, description, steps, bar)
        else:
            yield Advance(self.console, description, steps, None)
