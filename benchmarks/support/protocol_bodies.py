"""Damaged requests of every protocol: good ones whose JSON, base64, tensors, headers or bytes were changed.

a good request -> its values replaced, left out or nested; or its bytes flipped, cut, spliced
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from benchmarks.support.damage import damaged

_HOSTILE: Final[list[Any]] = [
    None, True, False, 0, -1, 1, 255, 256, 2**31, 2**63, 10**40, 0.5, 1e308, -1e308, "", " ", "a", "ä", "\u0000", "=",
    "YQ==", "data:image/png;base64,", "data:,", "http://127.0.0.1/a.png", "file:///etc/passwd", "UINT8", "BYTES",
    "FP32", "FP64", [], {}, [[]], [None], [[[[[]]]]], {"b64": {"b64": {}}}, {"instances": []}, "x" * 5_000, [0] * 3_000,
    [[1, 2], [3]],
]  # fmt: skip
_TYPES: Final = (
    "application/json", "text/plain", "image/png", "multipart/form-data", "multipart/form-data; boundary=x", "",
)  # fmt: skip
_SPLICED: Final = (b"[" * 300, b'"', b"\\u0000", b"\xff\xfe", b"NaN", b"1e999", b"{}")
_FIELDS: Final = ("b64", "data", "content", "image_bytes", "image", "body")
_HEADER: Final = "Inference-Header-Content-Length"


class Sent(NamedTuple):
    """A request.

    Attributes:
        path: where it goes.
        body: its body.
        headers: its headers.
    """

    path: str
    body: bytes
    headers: dict[str, str]


def request_of(protocol: str, images: list[bytes], rng: random.Random) -> Sent:
    """Returns a damaged request of a protocol.

    Args:
        protocol: a key of `PROTOCOLS`.
        images: good files, which may be inside.
        rng: decides what is changed.
    """
    sent = PROTOCOLS[protocol](images, rng)
    if rng.random() < 0.25:
        sent = sent._replace(body=_with_bytes_changed(sent.body, rng))
    if rng.random() < 0.1:
        types = (
            "application/json",
            "text/plain",
            "image/png",
            "multipart/form-data",
            "multipart/form-data; boundary=x",
            "",
        )
        sent.headers["Content-Type"] = rng.choice(types)
    if rng.random() < 0.03:
        sent.headers["Content-Encoding"] = rng.choice(("gzip", "deflate", "br", "identity"))
    return sent


def _file(images: list[bytes], rng: random.Random) -> bytes:
    return damaged(images, rng) if rng.random() < 0.3 else rng.choice(images)


def _text(images: list[bytes], rng: random.Random) -> str:
    text = base64.b64encode(_file(images, rng)).decode()
    if rng.random() < 0.1:
        place = rng.randrange(len(text) + 1)
        text = text[:place] + rng.choice("=*\n -_\u00e4") + text[place:]
    return ("data:image/png;base64," if rng.random() < 0.1 else "") + text


def _changed(value: Any, rng: random.Random, chance: float = 0.12) -> Any:
    """Returns a JSON value with parts of it replaced, left out or doubled."""
    if rng.random() < chance:
        return rng.choice(_HOSTILE)
    if isinstance(value, dict):
        kept = {name: _changed(each, rng, chance) for name, each in value.items() if rng.random() > chance / 3}
        return kept | ({rng.choice(("instances", "inputs", "data", "x")): 1} if rng.random() < chance / 3 else {})
    if isinstance(value, list) and len(value) < 100:
        return [_changed(each, rng, chance) for each in value for _ in range(2 if rng.random() < chance / 3 else 1)]
    return value


def _with_bytes_changed(body: bytes, rng: random.Random) -> bytes:
    if not body:
        return body
    kind, place = rng.randrange(4), rng.randrange(len(body))
    if kind == 0:
        return body[:place]
    if kind == 1:
        return body[:place] + rng.randbytes(rng.randrange(1, 9)) + body[place:]
    if kind == 2:
        return body[:place] + bytes([rng.randrange(256)]) + body[place + 1 :]
    return body[:place] + rng.choice(_SPLICED) + body[place:]


def _as_json(path: str, value: Any, rng: random.Random) -> Sent:
    return Sent(path, json.dumps(_changed(value, rng)).encode(), {"Content-Type": "application/json"})


def _instance(images: list[bytes], rng: random.Random) -> Any:
    text: Any = _text(images, rng)
    if rng.random() < 0.5:
        text = {"b64": text}
    return text if rng.random() < 0.2 else {rng.choice(_FIELDS): text}


def _instances(images: list[bytes], rng: random.Random) -> list[Any]:
    return [_instance(images, rng) for _ in range(rng.randrange(1, 4))]


def _torchserve(images: list[bytes], rng: random.Random) -> Sent:
    path = rng.choice(("/predictions/colours", "/predictions/colours/1.0", "/explanations/colours"))
    kind = rng.randrange(4)
    if kind == 0:
        return Sent(path, _file(images, rng), {})
    if kind == 1:
        return Sent(path, _text(images, rng).encode(), {"Content-Type": "text/plain"})
    return _as_json(path, {"instances": _instances(images, rng)} if kind == 2 else _text(images, rng), rng)


def _kserve(images: list[bytes], rng: random.Random) -> Sent:
    return _as_json("/v1/models/colours:predict", {"instances": _instances(images, rng)}, rng)


def _vertex(images: list[bytes], rng: random.Random) -> Sent:
    parameters = {"maxPredictions": rng.randrange(5), "confidenceThreshold": rng.random()}
    return _as_json("/vertex/predict", {"instances": _instances(images, rng), "parameters": parameters}, rng)


def _huggingface(images: list[bytes], rng: random.Random) -> Sent:
    if rng.random() < 0.2:
        return Sent("/", _file(images, rng), {})
    return _as_json("/", {"inputs": _text(images, rng), "parameters": {"top_k": rng.randrange(1, 5)}}, rng)


def _invocations(images: list[bytes], rng: random.Random) -> Sent:
    path = rng.choice(("/invocations", "/models/colours/invoke", "/endpoints/e/invocations"))
    text = _text(images, rng)
    tables = (
        {"instances": _instances(images, rng)},
        {"inputs": text},
        {"dataframe_split": {"columns": ["x"], "data": [[text], [text]]}},
        {"dataframe_records": [{"x": text}]},
    )
    return _as_json(path, rng.choice(tables), rng)


def _oip_json(images: list[bytes], rng: random.Random) -> Sent:
    kind = rng.randrange(3)
    if kind == 0:
        count = rng.randrange(1, 4)
        tensor = {"datatype": "BYTES", "shape": [count], "data": [_text(images, rng) for _ in range(count)]}
    elif kind == 1:
        height, width = rng.randrange(1, 20), rng.randrange(1, 20)
        values = [rng.randrange(256) for _ in range(3 * height * width)]
        tensor = {"datatype": "UINT8", "shape": [1, height, width, 3], "data": values}
    else:
        samples = [rng.uniform(-2, 2) for _ in range(768)]
        tensor = {"datatype": "FP32", "shape": [1, 3, 16, 16], "data": samples}
    return _as_json("/v2/models/colours/infer", _with_options({"name": "x", **tensor}, rng), rng)


def _with_options(tensor: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    output = {"name": "y", "parameters": {"classification": rng.randrange(4), "binary_data": rng.random() < 0.5}}
    request: dict[str, Any] = {"id": "1", "inputs": [tensor], "parameters": {"binary_data_output": rng.random() < 0.5}}
    return {**request, "outputs": [output]} if rng.random() < 0.5 else request


def _oip_binary(images: list[bytes], rng: random.Random) -> Sent:
    if rng.random() < 0.1:
        return Sent("/v2/models/colours/infer", _file(images, rng), {_HEADER: "0"})
    kind = rng.randrange(3)
    if kind == 0:
        files = [_file(images, rng) for _ in range(rng.randrange(1, 4))]
        raw = b"".join(len(each).to_bytes(4, "little") + each for each in files)
        tensor: dict[str, Any] = {"datatype": "BYTES", "shape": [len(files)]}
    elif kind == 1:
        raw, tensor = rng.randbytes(16 * 16 * 3), {"datatype": "UINT8", "shape": [1, 16, 16, 3]}
    else:
        raw, tensor = rng.randbytes(16 * 16 * 12), {"datatype": "FP32", "shape": [1, 3, 16, 16]}
    if rng.random() < 0.2:
        raw = _with_bytes_changed(raw, rng)
    tensor = {"name": "x", **tensor, "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps(_changed(_with_options(tensor, rng), rng, 0.05)).encode()
    length = len(head) if rng.random() < 0.9 else rng.choice((0, 1, len(head) - 1, len(head) + 1, 2**40))
    return Sent("/v2/models/colours/infer", head + raw, {_HEADER: str(length)})


PROTOCOLS: Final[dict[str, Callable[[list[bytes], random.Random], Sent]]] = {
    "torchserve": _torchserve,
    "kserve": _kserve,
    "vertex": _vertex,
    "huggingface": _huggingface,
    "invocations": _invocations,
    "oip-json": _oip_json,
    "oip-binary": _oip_binary,
}
"""What makes the requests of each protocol."""
