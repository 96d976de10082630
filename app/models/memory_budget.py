"""A budget of memory for models, by an estimate: what must go before one more may come."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from app.errors import MemoryBudgetError
from app.models.deployment import Slot
from app.store.stored_version import Release

# EfficientNet-Lite0 on a CPU: 66 MB for each copy loaded, of a file of 19 MB (the weights, the frozen graph, its
# compiled form); docs/upgrades.md. Measuring instead would measure the requests that are served meanwhile.
_MEMORY_PER_FILE_SIZE: Final = 4


def slots_to_unload(
    release: Release, slots: Iterable[Slot], dispensable: Sequence[Slot], *, budget_bytes: int
) -> list[Slot]:
    """Returns what must be unloaded before a release is loaded, the longest unused first.

    Args:
        release: what is to be loaded.
        slots: all that serve; one whose model is to be replaced needs memory for both.
        dispensable: those of them that may be unloaded.
        budget_bytes: what all may take.

    Raises:
        MemoryBudgetError: unloading all of those would not be enough.
    """
    excess = _estimate(release) + sum(_estimate(slot.release) for slot in slots) - budget_bytes
    if excess > sum(_estimate(slot.release) for slot in dispensable):
        raise MemoryBudgetError(
            f"{release.reference} would take about {_estimate(release) / 1e6:.0f} MB, {excess / 1e6:.0f} MB more than "
            "--memory-budget-mb leaves: unload another model, or raise it."
        )
    doomed = []
    for slot in sorted(dispensable, key=lambda slot: slot.last_used_at):
        if excess > 0:
            excess -= _estimate(slot.release)
            doomed.append(slot)
    return doomed


def _estimate(release: Release | None) -> int:
    return _MEMORY_PER_FILE_SIZE * release.size_bytes() if release else 0
