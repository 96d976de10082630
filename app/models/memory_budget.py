"""A budget of memory for models, by an estimate: what must go before one more may come."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from app.errors import MemoryBudgetError
from app.models.deployment import Deployment
from app.store.stored_version import StoredVersion

# EfficientNet-Lite0 on a CPU: 66 MB for each copy loaded, of a file of 19 MB (the weights, the frozen graph, its
# compiled form); docs/upgrades.md. Measuring instead would measure the requests that are served meanwhile.
_MEMORY_PER_FILE_SIZE: Final = 4


def deployments_to_unload(
    stored_version: StoredVersion,
    deployments: Iterable[Deployment],
    dispensable: Sequence[Deployment],
    *,
    budget_bytes: int,
) -> list[Deployment]:
    """Returns what must be unloaded before a stored version is loaded, the longest unused first.

    Args:
        stored_version: what is to be loaded.
        deployments: all that serve; one whose model is to be replaced needs memory for both.
        dispensable: those of them that may be unloaded.
        budget_bytes: what all may take.

    Raises:
        MemoryBudgetError: unloading all of those would not be enough.
    """
    excess = (
        _estimate(stored_version)
        + sum(_estimate(deployment.stored_version) for deployment in deployments)
        - budget_bytes
    )
    if excess > sum(_estimate(deployment.stored_version) for deployment in dispensable):
        raise MemoryBudgetError(
            f"{stored_version.reference} would take about {_estimate(stored_version) / 1e6:.0f} MB, "
            f"{excess / 1e6:.0f} MB more than "
            "--memory-budget-mb leaves: unload another model, or raise it."
        )
    doomed = []
    for deployment in sorted(dispensable, key=lambda deployment: deployment.last_used_at):
        if excess > 0:
            excess -= _estimate(deployment.stored_version)
            doomed.append(deployment)
    return doomed


def _estimate(stored_version: StoredVersion | None) -> int:
    return _MEMORY_PER_FILE_SIZE * stored_version.size_bytes() if stored_version else 0
