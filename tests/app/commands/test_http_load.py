"""The load that `bench` makes: what goes wrong is told, not counted."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from app.commands.bench.http_load import LoadError, closed_loop, own_server
from app.settings import ModelSettings
from tests.support.colours import colour_image

pytestmark = pytest.mark.slow


def test_answers_are_counted_and_a_refusal_ends_the_load(colours_store: Path) -> None:
    settings = ModelSettings(model="colours", model_store=colours_store, engine="torchscript")
    with own_server(settings) as url:
        rate, latencies = asyncio.run(closed_loop(url, [colour_image("red")], connections=2, seconds=0.1))
        assert rate > 0
        assert latencies
        _, latencies = asyncio.run(closed_loop(url, [colour_image("red")], connections=2, seconds=0))
        assert latencies, "there is an answer, however busy the machine"
        with pytest.raises(LoadError, match="415"):
            asyncio.run(closed_loop(url, [b"no image"], connections=1, seconds=0.1))


def test_server_that_does_not_become_ready_tells_its_log(tmp_path: Path) -> None:
    settings = ModelSettings(model="absent", model_store=tmp_path)

    with pytest.raises(LoadError, match="cannot be served"), own_server(settings):
        pass
