"""Decides which models must be unloaded before one more is loaded, so that all stay within a budget of memory.

What a model takes is estimated from the size of its files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from app.errors import MemoryBudgetError

# EfficientNet-Lite0 on a CPU: 66 MB for each copy loaded, of a file of 19 MB (the weights, the frozen graph, its
# compiled form); docs/upgrades.md. Measuring instead would measure the requests that are served meanwhile.
_MEMORY_PER_FILE_SIZE: Final = 4


class Unloadable(NamedTuple):
    """A model that may be unloaded to make room.

    Attributes:
        name: the model's name.
        file_bytes: the size of its files.
        last_used_at: when a request last asked for it, on the clock of `time.monotonic()`.
    """

    name: str
    file_bytes: int
    last_used_at: float


def models_to_unload(
    name: str, file_bytes: int, *, served_bytes: Iterable[int], unloadable: Sequence[Unloadable], budget_bytes: int
) -> list[str]:
    """Returns the names of the models to unload before another one is loaded, the longest unused first.

    Args:
        name: the model to load.
        file_bytes: the size of its files.
        served_bytes: the size of the files of each model that serves, those in `unloadable` included. A model that is
            to be replaced counts too: until the switch both are in memory.
        unloadable: the models that may be unloaded.
        budget_bytes: the most memory that all models together may take.

    Raises:
        MemoryBudgetError: unloading all of `unloadable` would not be enough.
    """
    excess = _memory(file_bytes) + _memory(sum(served_bytes)) - budget_bytes
    if excess > _memory(sum(model.file_bytes for model in unloadable)):
        raise MemoryBudgetError(
            f"{name} would take about {_memory(file_bytes) / 1e6:.0f} MB, {excess / 1e6:.0f} MB more than "
            "--memory-budget-mb leaves: unload another model, or raise it."
        )
    to_unload = []
    for model in sorted(unloadable, key=lambda model: model.last_used_at):
        if excess <= 0:
            break
        excess -= _memory(model.file_bytes)
        to_unload.append(model.name)
    return to_unload


def _memory(file_bytes: int) -> int:
    """Returns about how many bytes of memory models take, by the size of their files."""
    return _MEMORY_PER_FILE_SIZE * file_bytes
