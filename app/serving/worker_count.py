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
from app.inference.devices import CPU, resolve_devices
from app.settings import Settings
from app.store.model_store import ModelStore
from app.store.references import is_file_reference, split_alias
from app.store.signatures import TrustedKeys
from app.store.stored_version import version_to_serve

logger = logging.getLogger("app.serving")

# Images/s of one core x parameters of the network x side of its input in pixels: about the same for most networks.
# Estimated from 22 of them (benchmarks/NOTES.md, "How many workers").
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
    """Returns how many processes pay for the models that are to be served: as many as the slowest of them needs.

    It is 1 on a single core, on a GPU, and when a model is missing or cannot be read: the worker that loads it tells
    why.

    Args:
        settings: the service's settings.

    Raises:
        SignatureError: the trusted keys cannot be read.
    """
    cores = settings.core_count
    store = ModelStore(settings.model_store, TrustedKeys.configured(settings.trusted_keys))
    if not settings.model_references:
        return 1
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
    _, reference = split_alias(reference)
    stored_version, _ = version_to_serve(reference, store, served=None, rejected={})
    assert stored_version is not None  # nothing serves and nothing was rejected
    if is_file_reference(reference):
        parameters, side = Path(reference).stat().st_size / _BYTES_PER_PARAMETER, _USUAL_SIDE
    else:
        manifest = store.read_manifest(stored_version.path)
        parameters, side = manifest.architecture.parameter_count, manifest.preprocessing.image_size
    return _CORE_SPEED / (max(1, parameters) * side)


def _computes_on_cpu(device: str) -> bool:
    """Returns whether no GPU will be used.

    A process of its own asks for GPUs: no fork of a process that has asked can use one.
    """
    asking = multiprocessing.get_context("fork").Process(target=_exit_unless_cpu, args=(device,))
    asking.start()
    asking.join()
    return asking.exitcode == 0


def _exit_unless_cpu(device: str) -> None:
    try:
        devices = resolve_devices(device)
    except ArtifactError:
        sys.exit(1)
    sys.exit(devices != CPU)
