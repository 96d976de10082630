"""Another process decodes as this one does, tells the same errors, and can be ended; nothing else is lost by it."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features
from starlette.testclient import TestClient

from app.errors import CorruptImageError, DeadlineExceededError, PredictorError, TooMuchWorkError
from app.images.geometry import Geometry
from app.images.isolation import decoders as isolation
from app.images.isolation.decoders import IS_AVAILABLE, Decoders
from app.images.isolation.messages import Pixels as PixelsMessage
from app.images.isolation.messages import Request
from app.images.limits import DEFAULT_LIMITS, FORMATS
from app.inference import prepare as preparing
from app.inference.artifact import Artifact, VerifiedFiles
from app.inference.pipeline import Pipeline
from app.inference.prepare import PreparedImage, TakesMuchWorkError, prepare, prepare_elsewhere
from tests.support.colours import StartApp, colour_image
from tests.support.file_structures import huge_webp, structures
from tests.support.icc import rgb_profile
from tests.support.images import Pixels, encode, exif

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not IS_AVAILABLE, reason="decoders are Linux's")]


def model(*, resizes: bool = False) -> Artifact:
    """A model of which only the sizes matter."""
    geometry = None if resizes else Geometry(64, 48)
    return Artifact(VerifiedFiles(Path("x.pt")), "x", "1", ("x",), None, (), geometry)


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    """Decoders for every image."""
    pool = Decoders(for_all=True)
    yield pool
    pool.close()


def outcome(
    encoded: bytes, decoders: Decoders | None, *, resizes: bool = False, precision: str = "float32"
) -> PreparedImage | tuple[str, str]:
    """Returns the prepared image without its times, or the name and the sentence of the error."""
    way = encoded, model(resizes=resizes), precision, DEFAULT_LIMITS
    try:
        try:
            image = prepare(*way, decoders=decoders)  # type: ignore[arg-type]
        except TakesMuchWorkError:
            assert decoders
            image = prepare_elsewhere(*way, lambda _: None, decoders)  # type: ignore[arg-type]
    except PredictorError as error:
        return type(error).__name__, error.detail
    return image._replace(started_at=0.0, decode_s=0.0, resize_s=0.0)


def assert_same(encoded: bytes, decoders: Decoders, **options: object) -> None:
    here, elsewhere = outcome(encoded, None, **options), outcome(encoded, decoders, **options)  # type: ignore[arg-type]
    if isinstance(here, PreparedImage) and isinstance(elsewhere, PreparedImage):
        np.testing.assert_array_equal(elsewhere.pixels, here.pixels)
        assert elsewhere[1:] == here[1:]
    else:
        assert elsewhere == here


def kinds(cat: Pixels) -> dict[str, bytes]:
    """Files of every format, and of modes that need a part of Pillow or numpy of their own."""
    colour, alpha = Image.fromarray(cat), Image.fromarray(cat).convert("RGBA")
    wide = cat[..., 0].astype(np.uint16) * 257
    files = {
        "JPEG": encode(colour, "JPEG", quality=90),
        "JPEG turned": encode(colour, "JPEG", exif=exif(6)),
        "JPEG grey": encode(colour.convert("L"), "JPEG"),
        "JPEG CMYK": encode(colour.convert("CMYK"), "JPEG"),
        "JPEG progressive": encode(colour, "JPEG", progressive=True),
        "JPEG with a profile": encode(colour, "JPEG", icc_profile=rgb_profile()),
        "JPEG large": encode(colour.resize((1600, 1200)), "JPEG"),
        "PNG": encode(colour, "PNG"),
        "PNG alpha": encode(alpha, "PNG"),
        "PNG palette": encode(colour.convert("P"), "PNG"),
        "PNG 16 bits": encode(Image.fromarray(wide), "PNG"),
        "GIF": encode(colour.convert("P"), "GIF"),
        "BMP": encode(colour, "BMP"),
        "TIFF 16 bits": encode(Image.fromarray(wide), "TIFF"),
        "TIFF float": encode(Image.fromarray(cat[..., 0].astype(np.float32)), "TIFF"),
        "long": encode(colour.resize((4000, 60)), "PNG"),
        "cut short": encode(colour, "JPEG")[:-500],
        "PNG cut short": encode(colour, "PNG")[:-500],
        "no image": b"%PDF-1.7 and so on",
        "empty": b"",
        "too many pixels": huge_webp(16_000, 16_000),
    }
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits", "group4", "zstd"):
        source = colour.convert("1") if compression == "group4" else colour
        files[f"TIFF {compression}"] = encode(source, "TIFF", compression=compression)
    for name in ("WEBP", "AVIF"):
        if features.check(name.lower()):
            files |= {name: encode(colour, name), f"{name} alpha": encode(alpha, name)}
    return files | structures(cat)


def test_pixels_and_errors_are_those_of_this_process(decoders: Decoders, small_cat: Pixels) -> None:
    for name, encoded in kinds(small_cat).items():
        try:
            assert_same(encoded, decoders)
            assert_same(encoded, decoders, precision="bfloat16")
            assert_same(encoded, decoders, resizes=True)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error


def request_for(encoded: bytes, *, cpu_s: float = 5.0) -> Request:
    return Request(
        file_bytes=len(encoded), max_pixels=200_000_000, formats=FORMATS, geometry=Geometry(64, 48),
        min_shorter_side=None, exact=True, cpu_s=cpu_s,
    )  # fmt: skip


def test_image_that_takes_too_long_is_ended_and_the_next_one_is_decoded(decoders: Decoders, small_cat: Pixels) -> None:
    began = time.monotonic()
    encoded = huge_webp(12_000, 12_000)
    with (
        pytest.raises(TooMuchWorkError, match=r"more than 0\.2 s of CPU time"),
        decoders.decoded(encoded, request_for(encoded, cpu_s=0.2), lambda _: None),
    ):
        pass
    assert time.monotonic() - began < 10
    assert_same(encode(small_cat, "PNG"), decoders)


def children() -> list[int]:
    """Returns the processes that this one has started: nurseries."""
    return [int(pid) for pid in Path("/proc/thread-self/children").read_text().split()]


def descendants(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def test_decoder_that_dies_is_told_and_the_next_image_is_decoded(small_cat: Pixels) -> None:
    decoders = Decoders(for_all=True)
    encoded = encode(small_cat, "PNG")
    before = set(children())
    assert_same(encoded, decoders)
    [nursery] = set(children()) - before

    def kill(_: object) -> None:
        for decoder in descendants(nursery):
            os.kill(decoder, signal.SIGKILL)

    with (
        pytest.raises(CorruptImageError, match="its decoder has crashed"),
        decoders.decoded(encoded, request_for(encoded), kill),
    ):
        pass
    assert_same(encoded, decoders)
    os.kill(nursery, signal.SIGKILL)
    with decoders.decoded(encoded, request_for(encoded), lambda _: None):
        assert_same(encoded, decoders)  # while the other decoder is at work: a new one, from a new nursery
    decoders.close()
    assert not set(children()) - before


def test_image_that_gets_no_memory_says_so_and_leaves_its_decoder_at_work(
    decoders: Decoders, small_cat: Pixels
) -> None:
    def refuse(_: object) -> None:
        raise DeadlineExceededError("No time is left.")

    encoded = encode(small_cat, "PNG")
    for _ in range(3):
        with (
            pytest.raises(DeadlineExceededError, match="No time is left"),
            decoders.decoded(encoded, request_for(encoded), refuse),
        ):
            pass
    assert_same(encoded, decoders)


def test_many_threads_share_decoders(decoders: Decoders, small_cat: Pixels) -> None:
    files = [encode(small_cat, "JPEG", quality=quality) for quality in range(50, 90)]
    expected = [outcome(file, None) for file in files]
    found: dict[int, object] = {}

    def work(first: int) -> None:
        for index in range(first, len(files), 8):
            found[index] = outcome(files[index], decoders)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, image in enumerate(expected):
        other = found[index]
        assert isinstance(image, PreparedImage)
        assert isinstance(other, PreparedImage)
        assert np.array_equal(image.pixels, other.pixels)


def test_what_a_decoder_says_is_checked(decoders: Decoders, small_cat: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file may have taken it over: sizes that lead out of the shared memory are no pixels."""
    encoded = encode(small_cat, "PNG")
    receive = isolation._Decoder._receive

    def lying(decoder: isolation._Decoder) -> object:
        message = receive(decoder)
        return message.model_copy(update={"height": 60_000}) if isinstance(message, PixelsMessage) else message

    monkeypatch.setattr(isolation._Decoder, "_receive", lying)
    idle = len(decoders._idle)
    whole = request_for(encoded).model_copy(update={"geometry": None})
    with (
        pytest.raises(PredictorError, match="make no sense"),
        decoders.decoded(encoded, whole, lambda _: None),
    ):
        pass
    assert len(decoders._idle) == max(0, idle - 1)  # it is ended


def decode_once(encoded: bytes, decoders: Decoders) -> None:
    with decoders.decoded(encoded, request_for(encoded), lambda _: None):
        pass


HEIC_FILES = Path(__file__).parents[1] / "heic"


def test_only_what_takes_much_work_goes_elsewhere(small_cat: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Decoders(for_all=False)
    asked: list[int] = []
    decoded = Decoders.decoded

    def remember(decoders: Decoders, encoded: bytes, request: Request, reserve: object) -> object:
        asked.append(len(encoded))
        return decoded(decoders, encoded, request, reserve)  # type: ignore[arg-type]

    monkeypatch.setattr(Decoders, "decoded", remember)
    small = encode(small_cat, "JPEG")
    large = encode(Image.fromarray(small_cat).resize((5000, 4000)), "JPEG")
    assert_same(small, pool)
    assert asked == []
    assert_same(large, pool)  # though it is decoded at an eighth of its size
    assert_same(huge_webp(5000, 4000), pool)
    assert asked == [len(large), len(huge_webp(5000, 4000))]
    heic = (HEIC_FILES / "turned.heic").read_bytes()  # libheif has crashed on damaged files
    assert_same(heic, pool)
    assert asked.pop() == len(heic)
    monkeypatch.setattr(preparing, "_MUCH_BYTES", len(small) - 1)
    assert_same(small, pool)
    assert asked[2:] == [len(small)]
    pool.close()


CONFINED = """
import os, socket, sys, threading
sys.path[:] = {path!r}
from app.images.isolation.confinement import confine
confine()

def refused(call):
    try:
        call()
    except PermissionError:
        return True
    return False

assert refused(lambda: open("/etc/hostname")), "open"
assert refused(lambda: open("/tmp/x", "w")), "create"
assert refused(lambda: socket.socket()), "socket"
assert refused(os.fork), "fork"
assert refused(lambda: os.execv("/bin/true", ["true"])), "exec"
assert refused(lambda: os.kill(os.getppid(), 0)), "kill"
assert refused(lambda: os.listdir("/")), "list"
assert refused(lambda: os.unlink("/tmp/nothing")), "unlink"
assert refused(lambda: os.dup2(1, 9)), "dup2"
thread = threading.Thread(target=lambda: print("thread"))  # codecs start some
thread.start()
thread.join()
print("confined", flush=True)
"""


def test_decoder_can_do_nothing_but_compute() -> None:
    code = CONFINED.format(path=sys.path)
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert finished.stdout.split() == ["thread", "confined"], finished.stderr


def test_decoder_has_a_limit_on_its_memory() -> None:
    code = f"""
import sys
sys.path[:] = {sys.path!r}
import numpy
from app.images.isolation.confinement import address_bytes, confine, limit_memory
own = address_bytes()
confine()
limit_memory(own, 100_000_000)
numpy.ones(200_000_000, numpy.uint8)
try:
    numpy.ones(600_000_000, numpy.uint8)
except MemoryError:
    print("limited", flush=True)
"""
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert finished.stdout.split() == ["limited"], finished.stderr


def test_costly_image_is_refused_by_the_service_and_others_are_answered(
    start_app: StartApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation, "MAX_CPU_S", 0.2)
    client = start_app(max_pixels=200_000_000, max_decode_mb=8_000)
    refused = client.post("/predict", content=huge_webp(12_000, 12_000))

    assert (refused.status_code, refused.json()["code"]) == (413, "too_much_work")
    assert client.post("/predict", content=colour_image("red")).json()["predictions"][0]["class_name"] == "red"
    assert client.get("/health/ready").status_code == 200


def test_damaged_file_costs_no_worker(start_app: StartApp) -> None:
    """One byte of a photo's list of parts was enough: pi_heif 1.4.0 crashes where the type of a part is no UTF-8."""
    photo = (HEIC_FILES / "turned.heic").read_bytes()
    place = photo.index(b"infe\x02\x00\x00\x01\x00\x02\x00\x00Exif") + 12
    client = start_app()

    response = client.post("/predict", content=photo[:place] + b"\x80" + photo[place + 1 :])

    assert (response.status_code, response.json()["code"]) == (400, "corrupt_image")
    assert client.post("/predict", content=photo).json()["image"]["format"] == "HEIC"


def test_service_may_decode_everything_elsewhere(start_app: StartApp) -> None:
    client: TestClient = start_app(isolate_decoding=True)

    assert client.post("/predict", content=colour_image("blue")).json()["predictions"][0]["class_name"] == "blue"
    assert client.post("/predict", content=colour_image("blue")[:-30]).json()["code"] == "corrupt_image"


def test_decoders_end_with_the_service(start_app: StartApp) -> None:
    before = set(children())
    client = start_app(isolate_decoding=True)
    client.post("/predict", content=colour_image("blue"))
    client.__exit__()
    gc.collect()

    assert not set(children()) - before


def test_images_that_take_much_work_hold_up_no_others(
    start_app: StartApp, monkeypatch: pytest.MonkeyPatch, cat: Pixels
) -> None:
    """However many there are: others find a stream that is free."""
    monkeypatch.setattr(preparing, "_MUCH_BYTES", 10_000)
    go_on, prepare_costly = threading.Event(), Pipeline._prepare_elsewhere

    def wait(pipeline: Pipeline, image: Any) -> PreparedImage:
        assert go_on.wait(20)
        return prepare_costly(pipeline, image)

    monkeypatch.setattr(Pipeline, "_prepare_elsewhere", wait)
    client = start_app(streams=1)
    costly = encode(cat, "PNG")
    with ThreadPoolExecutor(8) as clients:
        waiting = [clients.submit(client.post, "/predict", content=costly) for _ in range(8)]
        for _ in range(5):
            assert client.post("/predict", content=colour_image("red")).status_code == 200
        assert not any(each.done() for each in waiting)
        go_on.set()
        assert [each.result().status_code for each in waiting] == [200] * 8


def test_image_that_takes_much_work_is_given_up_at_its_deadline(
    start_app: StartApp, monkeypatch: pytest.MonkeyPatch, cat: Pixels
) -> None:
    monkeypatch.setattr(preparing, "_MUCH_BYTES", 10_000)
    go_on = threading.Event()
    monkeypatch.setattr(Pipeline, "_prepare_elsewhere", lambda *_: go_on.wait(20))
    client = start_app(streams=1)
    late = client.post("/predict", content=encode(cat, "PNG"), headers={"X-Request-Timeout-Ms": "300"})
    go_on.set()

    assert (late.status_code, late.json()["code"]) == (504, "deadline_exceeded")
