"""Decides how many worker processes pay: as many as it takes for Python not to be slower than the models.

parameters and image side of each model, from its manifest -> estimated images/s on all cores -> the slowest decides

Nothing is loaded for it, so that the parent of the workers can decide before it forks them.
"""

from __future__ import annotations

import logging
import multiprocessing
import sys
from pathlib import Path
from typing import Final

from app.errors import ArtifactError, PredictorError
from app.inference.engine import resolve_devices
from app.settings import Settings
from app.store.model_store import ModelStore, is_file_reference
from app.store.signatures import TrustedKeys
from app.store.stored_version import version_to_serve

logger = logging.getLogger("app.serving")

# One core computes about this many images a second, times the network's parameters, times the side of its input in
# pixels. An estimate from 22 networks (benchmarks/NOTES.md, "How many workers").
_CORE_SPEED: Final = 160e9
# What one process can receive, decode and answer is about 1,000 small images a second (docs/workers.md): below that
# the model is the limit, and a second copy of it would only cost memory.
_ONE_PROCESS_IMAGES_PER_S: Final = 1000
# Above it, each worker is given this much, so that Python is not the limit again.
_IMAGES_PER_S_PER_WORKER: Final = 500
# What is assumed of a plain TorchScript file, which does not tell before it is loaded.
_BYTES_PER_PARAMETER: Final = 4
_USUAL_SIDE: Final = 224


def worthwhile_workers(settings: Settings) -> int:
    """Returns how many processes pay for the models that are to be served: what the slowest of them needs.

    1 on a single core, on a GPU, and when a model is missing or cannot be read: the worker that loads it tells why.

    Args:
        settings: the service's settings.

    Raises:
        SignatureError: the trusted keys cannot be read.
    """
    cores = settings.core_count
    store = ModelStore(settings.model_store, TrustedKeys.configured(settings.trusted_keys))
    try:
        slowest = cores * min(_images_per_s_per_core(reference, store) for reference in settings.model_references)
    except (PredictorError, OSError):
        return 1
    workers = min(cores, int(slowest / _IMAGES_PER_S_PER_WORKER))
    if slowest < _ONE_PROCESS_IMAGES_PER_S or workers == 1 or not _computes_on_cpu(settings.device):
        return 1
    logger.info("The models can do about %.0f images/s, more than one process can feed: %d workers.", slowest, workers)
    return workers


def _images_per_s_per_core(reference: str, store: ModelStore) -> float:
    stored_version, _ = version_to_serve(reference, store, served=None, rejected={})
    assert stored_version is not None  # nothing serves and nothing was rejected
    if is_file_reference(reference):
        parameters, side = Path(reference).stat().st_size / _BYTES_PER_PARAMETER, _USUAL_SIDE
    else:
        manifest = store.read_manifest(stored_version.path)
        parameters, side = manifest.architecture.parameter_count, manifest.preprocessing.image_size
    return _CORE_SPEED / (max(1, parameters) * side)


def _computes_on_cpu(device: str) -> bool:
    """Asks in a process of its own: one that has asked for GPUs cannot be forked into processes that use them."""
    asking = multiprocessing.get_context("fork").Process(target=_exit_unless_cpu, args=(device,))
    asking.start()
    asking.join()
    return asking.exitcode == 0


def _exit_unless_cpu(device: str) -> None:
    try:
        devices = resolve_devices(device)
    except ArtifactError:
        sys.exit(1)
    sys.exit(any(each.type != "cpu" for each in devices))
