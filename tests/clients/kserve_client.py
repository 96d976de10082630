"""Asks a service with KServe's own client, and prints what it was answered; see test_heavy.py, which runs it."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig


async def _ask(url: str, photo: bytes) -> dict[str, Any]:
    text = base64.b64encode(photo).decode()
    v1, v2 = (InferenceRESTClient(RESTConfig(protocol=protocol)) for protocol in ("v1", "v2"))
    answered: dict[str, Any] = {
        "live": [await v1.is_server_live(url), await v2.is_server_live(url)],
        "ready": [await v2.is_server_ready(url)],
        "model_ready": [await v1.is_model_ready(url, "colours"), await v2.is_model_ready(url, "colours")],
    }
    answered["v1"] = await v1.infer(url, {"instances": [{"b64": text}]}, model_name="colours")
    as_text = InferInput(name="image", shape=[1], datatype="BYTES", data=[text])
    as_pixels = InferInput(name="image", shape=[1, 16, 16, 3], datatype="UINT8")
    as_pixels.set_data_from_numpy(np.full((1, 16, 16, 3), 90, np.uint8), binary_data=True)
    for name, tensor in (("v2", as_text), ("v2_binary", as_pixels)):
        request = InferRequest(model_name="colours", infer_inputs=[tensor])
        response = await v2.infer(url, request, model_name="colours")
        answered[name] = [output.as_numpy().ravel().tolist() for output in response.outputs]
    return answered


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(_ask(sys.argv[1], Path(sys.argv[2]).read_bytes()))))
