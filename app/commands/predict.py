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
from rich.table import Column, Table
from rich.text import Text

from app.api.answers import describe_image, top_classes
from app.api.schemas import Prediction
from app.commands.find_images import UnreadableFileError, find_images
from app.errors import PredictorError
from app.models.registry import Registry
from app.models.served_model import ServedModel
from app.settings import ModelSettings
from app.telemetry.metrics import Metrics

_PROGRESS_FROM_FILES = 20  # fewer are done before a bar would help
_FILES_AT_ONCE_PER_CORE = 4  # keeps decoders and streams busy, and a bounded number of files in memory


class FileResult(NamedTuple):
    """The outcome for one file: a prediction or an error."""

    path: Path
    outcome: Prediction | PredictorError


def predict_files(settings: ModelSettings, paths: Sequence[Path], *, top_k: int, as_json: bool) -> bool:
    """Classifies files and prints the outcomes in the order of the files.

    What is left out of a folder is named on standard error.

    Args:
        settings: which model to use, and how. Only its first model is used.
        paths: files and folders; see `find_images`.
        top_k: how many classes to show for each image.
        as_json: whether to print a line of JSON for each file instead of a table.

    Returns:
        whether there were images, and every one was classified.

    Raises:
        UnreadableFileError: none of the paths exists.
        NotReadyError: the model cannot be used.
    """
    found = find_images(paths)
    for path, reason in [*found.left_out, *found.unreadable]:
        print(f"{_printable(str(path))} is not classified. {reason}", file=sys.stderr)
    if not found.images:
        return False
    results = asyncio.run(_predict(settings, found.images, top_k=top_k, as_json=as_json))
    if not as_json:
        Console().print(_table(results))
    return not found.unreadable and all(isinstance(result.outcome, Prediction) for result in results)


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
    table = Table(Column("File", overflow="fold"), Column("Class", overflow="fold"), "Probability")
    for path, outcome in results:
        if isinstance(outcome, Prediction):
            names = "\n".join(_printable(prediction.class_name) for prediction in outcome.predictions)
            probabilities = "\n".join(f"{p.probability:.4f}" for p in outcome.predictions)
            table.add_row(Text(_printable(str(path))), Text(names), probabilities)
        else:
            refused = Text.assemble((outcome.code, "red"), "\n", _printable(outcome.detail))
            table.add_row(Text(_printable(str(path))), refused, "")
    return table


def _printable(text: str) -> str:
    """Returns a text as it is, but for characters that would move the cursor, or that are no Unicode: as escapes."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
