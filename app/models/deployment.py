"""One model that was asked for: what serves for it, and why something else does not."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from app.errors import PredictorError
from app.models.served_model import ServedModel
from app.store.stored_version import StoredVersion


@dataclass(frozen=True, eq=False)
class Rejection:
    """Why something that should serve does not.

    Attributes:
        error: what went wrong.
        stored_version: what was tried; None if the store itself is the trouble.
        is_final: whether it can only work when its files change.
    """

    error: PredictorError
    stored_version: StoredVersion | None = None
    is_final: bool = True

    @property
    def reason(self) -> str:
        """The error's sentence."""
        return self.error.detail

    def is_like(self, other: Rejection | None) -> bool:
        """Whether another one tells nothing else."""
        return other is not None and (self.reason, self.stored_version) == (other.reason, other.stored_version)


@dataclass(eq=False)
class Deployment:
    """One model that was asked for.

    Attributes:
        reference: as it was asked for.
        model: once it serves.
        stored_version: the files that it was loaded from.
        rejection: why something else does not serve in its place, or nothing at all.
        rejected: the stored versions that failed, by reference.
        unfinished: a stored version that may still be on its way into the store.
        last_used_at: when a request last asked for it, of `time.monotonic`.
    """

    reference: str
    model: ServedModel | None = None
    stored_version: StoredVersion | None = None
    rejection: Rejection | None = None
    rejected: dict[str, Rejection] = field(default_factory=dict)
    unfinished: StoredVersion | None = None
    last_used_at: float = field(default_factory=time.monotonic)

    @property
    def name(self) -> str:
        """The model's name, as far as it is known."""
        return self.model.artifact.name if self.model else self.reference.partition("/")[0]

    @property
    def file_bytes(self) -> int:
        """The size of the files of the model that serves; 0 if none does."""
        return self.stored_version.size_bytes() if self.stored_version else 0

    @property
    def failure(self) -> str | None:
        """Why nothing serves, once that is known."""
        return self.rejection.reason if self.rejection and not self.model else None

    @property
    def reason(self) -> str:
        """Why it does not serve."""
        return f"Model {self.reference}: {self.failure or 'is being loaded.'}"
