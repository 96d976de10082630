"""A deployment: a model that was asked for, the version that serves for it, and why a better one does not."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from app.errors import PredictorError
from app.models.disk_access import DiskAccess
from app.models.served_model import ServedModel
from app.store.references import split_alias
from app.store.stored_version import StoredVersion


@dataclass(frozen=True, eq=False)
class Rejection:
    """Why a version that should serve does not.

    Attributes:
        error: what went wrong.
        stored_version: the version that was tried; None if the store itself could not be read.
        is_final: whether another try with the same files would fail again.
    """

    error: PredictorError
    stored_version: StoredVersion | None = None
    is_final: bool = True

    @property
    def reason(self) -> str:
        """The error's sentence."""
        return self.error.detail

    def is_like(self, other: Rejection | None) -> bool:
        """Returns whether another rejection has the same reason and the same version."""
        return other is not None and (self.reason, self.stored_version) == (other.reason, other.stored_version)


@dataclass(eq=False)
class Deployment:
    """A model that was asked for, and the version that serves for it.

    Attributes:
        reference: what was asked for: `NAME`, `NAME/VERSION`, or the path of a TorchScript file; each may have
            `ALIAS=` before it.
        model: the model that serves; None until one does.
        stored_version: the version in the store that `model` was loaded from; None until one serves.
        rejection: why no model, or no better version, serves; None if the version that should serve does.
        rejected: the rejections of the versions that failed, by the version's reference.
        unfinished: a version whose files may still be on their way into the store; None if there is none.
        is_removed: whether it has been taken out of service. A version that is being loaded for it is given up.
        disk: the access to the disk that has the model.
        refreshing: held while the store is looked at for it.
        last_used_at: when a request last asked for the model, on the clock of `time.monotonic()`; at first, when the
            deployment was made.
    """

    reference: str
    model: ServedModel | None = None
    stored_version: StoredVersion | None = None
    rejection: Rejection | None = None
    rejected: dict[str, Rejection] = field(default_factory=dict)
    unfinished: StoredVersion | None = None
    is_removed: bool = False
    disk: DiskAccess = field(default_factory=DiskAccess)
    refreshing: asyncio.Lock = field(default_factory=asyncio.Lock)
    last_used_at: float = field(default_factory=time.monotonic)

    @property
    def alias(self) -> str | None:
        """The name that the model is served under instead of its own; None for its own."""
        return split_alias(self.reference)[0]

    @property
    def source(self) -> str:
        """What was asked for, without the alias."""
        return split_alias(self.reference)[1]

    @property
    def name(self) -> str:
        """The model's name. That of a TorchScript file is known once it is loaded; until then, a part of its path."""
        return self.model.artifact.name if self.model else self.alias or self.reference.partition("/")[0]

    @property
    def file_bytes(self) -> int:
        """The size of the files of the model that serves; 0 if none does."""
        return self.stored_version.size_bytes() if self.stored_version else 0

    @property
    def failure(self) -> str | None:
        """Why no model serves; None while one serves, or is being loaded."""
        return self.rejection.reason if self.rejection and not self.model else None

    @property
    def reason(self) -> str:
        """The sentence for a client that asks for the model while it does not serve."""
        return f"Model {self.reference}: {self.failure or 'is being loaded.'}"
