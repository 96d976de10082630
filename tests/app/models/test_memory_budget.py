"""The models that were unused for longest make room, and no more of them than needed."""

from __future__ import annotations

import pytest

from app.errors import MemoryBudgetError
from app.models.memory_budget import Unloadable, models_to_unload

MB = 1_000_000
OLD, NEW, MIDDLE = Unloadable("old", MB, 1.0), Unloadable("new", MB, 3.0), Unloadable("middle", MB, 2.0)


@pytest.mark.parametrize(
    ("budget_mb", "unloaded"), [(20, []), (16, ["old"]), (13, ["old", "middle"]), (8, ["old", "middle", "new"])]
)
def test_longest_unused_are_unloaded_first_and_no_more_than_needed(budget_mb: int, unloaded: list[str]) -> None:
    names = models_to_unload(
        "wanted", MB, served_bytes=[MB] * 4, unloadable=[NEW, OLD, MIDDLE], budget_bytes=budget_mb * MB
    )

    assert names == unloaded


def test_model_that_would_not_fit_even_then_is_refused_and_nothing_is_unloaded() -> None:
    with pytest.raises(MemoryBudgetError, match="wanted would take about 4 MB, 13 MB more than --memory-budget-mb"):
        models_to_unload("wanted", MB, served_bytes=[MB] * 4, unloadable=[NEW, OLD, MIDDLE], budget_bytes=7 * MB)
