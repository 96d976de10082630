"""How an image of any size becomes the square that a network sees."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

Interpolation = Literal["bilinear", "bicubic"]
Fit = Literal["crop", "squash"]


class Sized(Protocol):
    """What says how images are prepared, such as the preprocessing in a manifest."""

    @property
    def resize_size(self) -> int:
        """The length that the shorter side is resized to, in pixels."""

    @property
    def image_size(self) -> int:
        """The side of the square, in pixels."""

    @property
    def interpolation(self) -> Interpolation:
        """The filter."""

    @property
    def fit(self) -> Fit:
        """Whether the centre is cut out, or each side is resized by itself."""


class Geometry(NamedTuple):
    """What is done to an image before the network sees it.

    Attributes:
        resize_size: the length that the shorter side is resized to, in pixels; S for `squash`.
        image_size: the side S of the square, in pixels, at most `resize_size`.
        interpolation: the filter, antialiased. `bicubic` is Keys' with a = -0.5, as Pillow has it.
        fit: `crop` keeps the proportions and cuts out the centre, `squash` resizes each side to S.
    """

    resize_size: int
    image_size: int
    interpolation: Interpolation = "bilinear"
    fit: Fit = "crop"

    @classmethod
    def of(cls, preprocessing: Sized) -> Geometry:
        """Returns the geometry that something else says."""
        return cls(preprocessing.resize_size, preprocessing.image_size, preprocessing.interpolation, preprocessing.fit)
