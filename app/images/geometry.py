"""How an image of any size becomes the square that a network sees."""

from __future__ import annotations

from typing import Literal, NamedTuple

Interpolation = Literal["bilinear", "bicubic"]
Fit = Literal["crop", "squash"]


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
