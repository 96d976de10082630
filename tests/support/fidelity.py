"""Measures how far what is served is from the reference (docs/artifact.md, Fidelity)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

MAX_DEVIATION = 0.02
Probabilities = npt.NDArray[np.float64]
Serve = Callable[[bytes], Probabilities]


def deviation(served: Probabilities, reference: Probabilities) -> float:
    """Returns the largest |dp|, or infinity if the top class changed although the reference was sure of it."""
    second, first = np.sort(reference)[-2:]
    same_top = served.argmax() == reference.argmax() or first - second <= MAX_DEVIATION
    return float(np.abs(served - reference).max()) if same_top else np.inf
