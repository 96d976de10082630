"""What was found out about engines when a model was loaded: plain data, for the log and for `GET /models`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GoldenCheck:
    """The outcome of a golden check that was passed.

    Attributes:
        example_count: how many golden images were compared.
        max_abs_deviation: the largest |p_served - p_reference| of all probabilities.
        bound: the largest deviation that was allowed.
    """

    example_count: int
    max_abs_deviation: float
    bound: float


@dataclass(frozen=True)
class Candidate:
    """An engine that was considered for a model.

    Attributes:
        engine: the engine's name.
        golden_check: the outcome of its golden check; None if it failed, or the model has no golden examples.
        images_per_s: its rate, measured when the model was loaded; None where no other engine was left to compare with.
        rejected_because: why the engine was left out; None if it was not.
    """

    engine: str
    golden_check: GoldenCheck | None = None
    images_per_s: float | None = None
    rejected_because: str | None = None
