"""What the service and a decoder tell each other, as JSON; each message is one packet.

Request -> Need -> Grant -> Pixels, or Failure instead of the last; a Grant that says no is followed by a Failure
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from app.images.colour import Adjustment
from app.images.geometry import Geometry
from app.images.limits import MAX_SIDE, ImageFormat, ImageSource

MAX_MESSAGE_BYTES: Final = 65_536


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Request(_Message):
    """Asks for an image to be decoded, whose file lies at the beginning of the shared memory.

    With a geometry, it is resized and cropped too. It may take so many seconds of the CPU.
    """

    kind: Literal["request"] = "request"
    file_bytes: int
    max_pixels: int
    formats: tuple[ImageFormat, ...]
    geometry: Geometry | None
    min_shorter_side: int | None
    exact: bool
    cpu_s: float


class Need(_Message):
    """Tells what decoding will take; the fields are those of `Cost`."""

    kind: Literal["need"] = "need"
    memory_bytes: int = Field(ge=0)
    pixels: int = Field(ge=0)
    coded_pixels: int = Field(ge=0)


class Grant(_Message):
    """Says whether to go on."""

    kind: Literal["grant"] = "grant"
    is_granted: bool


class Pixels(_Message):
    """Tells that the pixels lie in the shared memory, behind the file."""

    kind: Literal["pixels"] = "pixels"
    format: ImageSource
    width: int = Field(ge=1, le=MAX_SIDE)
    height: int = Field(ge=1, le=MAX_SIDE)
    adjustments: tuple[Adjustment, ...] = Field(max_length=20)
    decode_s: float = Field(ge=0)
    resize_s: float = Field(ge=0)


class Failure(_Message):
    """Tells why there are no pixels: the name of an error of `app.errors`, or of another, and its sentence."""

    kind: Literal["failure"] = "failure"
    error: str
    detail: str


Message = Request | Need | Grant | Pixels | Failure
_ANY: Final[TypeAdapter[Message]] = TypeAdapter(Annotated[Message, Field(discriminator="kind")])


def to_bytes(message: Message) -> bytes:
    """Returns the packet of a message."""
    return message.model_dump_json().encode()


def from_bytes(packet: bytes) -> Message:
    """Reads a packet.

    Raises:
        ValueError: it is no message.
    """
    return _ANY.validate_json(packet)


def pixels_at(file_bytes: int) -> int:
    """Returns where in the shared memory the pixels begin behind a file of this length."""
    return -(-file_bytes // 64) * 64
