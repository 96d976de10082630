"""The command `predict`: classifies files without a server.

files and folders -> the pipeline of the service -> a table for people, or JSON lines for machines
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from app.api.answers import describe_image, top_classes
from app.api.schemas import Prediction
from app.errors import PredictorError
from app.models.registry import Registry
from app.models.served_model import ServedModel
from app.settings import ModelSettings
from app.telemetry.metrics import Metrics

_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"}
_PROGRESS_FROM_FILES = 20  # fewer are done before a bar would help
_FILES_AT_ONCE_PER_CORE = 4  # keeps decoders and streams busy, and a bounded number of files in memory


class UnreadableFileError(PredictorError):
    """A file that is not there, cannot be read, or cannot be used."""

    code = "unreadable_file"


class FileResult(NamedTuple):
    """The outcome for one file: a prediction or an error."""

    path: Path
    outcome: Prediction | PredictorError


def find_images(paths: Iterable[Path]) -> list[Path]:
    """Returns the files to classify.

    Args:
        paths: files, and folders. The files with an image's suffix in a folder and below it are taken, sorted.

    Raises:
        UnreadableFileError: a path does not exist.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(file for file in path.rglob("*") if file.suffix.lower() in _SUFFIXES and file.is_file())
        elif path.exists():
            found.append(path)
        else:
            raise UnreadableFileError(f"There is no file or folder {path}.")
    return found


def predict_files(settings: ModelSettings, paths: Sequence[Path], *, top_k: int, as_json: bool) -> bool:
    """Classifies files and prints the outcomes in the order of the files.

    Args:
        settings: which model to use, and how. Only its first model is used.
        paths: files and folders; see `find_images`.
        top_k: how many classes to show for each image.
        as_json: whether to print a line of JSON for each file instead of a table.

    Returns:
        whether every file was classified.

    Raises:
        UnreadableFileError: a path does not exist.
        NotReadyError: the model cannot be used.
    """
    files = find_images(paths)
    results = asyncio.run(_predict(settings, files, top_k=top_k, as_json=as_json))
    if not as_json:
        Console().print(_table(results))
    return all(isinstance(result.outcome, Prediction) for result in results)


async def _predict(settings: ModelSettings, files: Sequence[Path], *, top_k: int, as_json: bool) -> list[FileResult]:
    settings = settings.model_copy(update={"model": settings.model_references[0]})
    registry = Registry(settings, Metrics(), max_queue_items=len(files) + 1)
    await registry.load_all()
    try:
        model = registry.get()
        results = []
        quiet = len(files) < _PROGRESS_FROM_FILES or not sys.stderr.isatty()
        with Progress(console=Console(stderr=True), disable=quiet) as progress:
            bar = progress.add_task("Classifying", total=len(files))
            async for result in _classify_all(
                model, files, top_k, files_at_once=_FILES_AT_ONCE_PER_CORE * settings.core_count
            ):
                results.append(result)
                progress.advance(bar)
                if as_json:
                    print(json.dumps(_to_json(result)), flush=True)
        return results
    finally:
        await asyncio.to_thread(registry.close)


async def _classify_all(
    model: ServedModel, files: Sequence[Path], top_k: int, *, files_at_once: int
) -> AsyncIterator[FileResult]:
    window: deque[asyncio.Task[FileResult]] = deque()
    for path in files:
        window.append(asyncio.create_task(_classify(model, path, top_k)))
        if len(window) == files_at_once:
            yield await window.popleft()
    while window:
        yield await window.popleft()


async def _classify(model: ServedModel, path: Path, top_k: int) -> FileResult:
    artifact = model.artifact
    try:
        encoded = await asyncio.to_thread(path.read_bytes)
        classification = await model.pipeline.classify(encoded, deadline=math.inf)
    except OSError as error:
        return FileResult(path, UnreadableFileError(f"{path} cannot be read: {error.strerror}."))
    except PredictorError as error:
        return FileResult(path, error)
    prediction = Prediction(
        model=artifact.name,
        version=artifact.version,
        predictions=top_classes(classification, artifact.class_names, top_k),
        image=describe_image(classification),
    )
    return FileResult(path, prediction)


def _to_json(result: FileResult) -> dict[str, Any]:
    if isinstance(result.outcome, Prediction):
        return {"file": str(result.path), **result.outcome.model_dump(mode="json")}
    return {"file": str(result.path), "error": {"code": result.outcome.code, "detail": result.outcome.detail}}


def _table(results: Iterable[FileResult]) -> Table:
    table = Table("File", "Class", "Probability")
    for path, outcome in results:
        if isinstance(outcome, Prediction):
            names = "\n".join(prediction.class_name for prediction in outcome.predictions)
            table.add_row(str(path), names, "\n".join(f"{p.probability:.4f}" for p in outcome.predictions))
        else:
            table.add_row(str(path), f"[red]{outcome.code}[/red]\n{outcome.detail}", "")
    return table
