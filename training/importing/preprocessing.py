"""What is done to an image before a network sees it: read from the network's own configuration, or given."""

from __future__ import annotations

from dataclasses import dataclass

from app.images.geometry import Fit, Interpolation
from app.store.manifest import Preprocessing
from training.errors import SourceError
from training.export.predictor import check_numbers


@dataclass(frozen=True)
class Given:
    """What the caller says about the preprocessing; None leaves it to the model's own configuration.

    Attributes:
        image_size: the side S of the square that the network sees, in pixels.
        resize_size: the shorter side before the centre is cut out, in pixels.
        mean: the mean of each channel, for samples in [0, 1].
        std: the standard deviation of each channel, for samples in [0, 1].
        interpolation: the filter of the resize, antialiased.
        fit: whether the centre is cut out, or each side is resized by itself.
    """

    image_size: int | None = None
    resize_size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: Interpolation | None = None
    fit: Fit | None = None

    def over(self, own: Preprocessing | None) -> Preprocessing:
        """Returns the model's own preprocessing, with what the caller says in its place.

        Args:
            own: what the model's configuration says; None if it says nothing.

        Raises:
            SourceError: neither says what is needed, or no image can be prepared with what they say.
        """
        said = {name: value for name, value in vars(self).items() if value is not None}
        missing = [f"--{name.replace('_', '-')}" for name in ("image_size", "mean", "std") if name not in said]
        if missing and not own:
            raise SourceError(
                f"The source does not say how it prepares its images: give {', '.join(missing)}, as in its training."
            )
        usual = own.model_dump() if own else {"resize_size": said["image_size"]}
        together = Preprocessing(**usual | said)
        try:
            check_numbers(together.image_size, together.resize_size, together.mean, together.std)
        except ValueError as error:
            raise SourceError(f"No image can be prepared like this: {error}") from error
        return together


def interpolation_named(name: object) -> Interpolation:
    """Returns the filter that other libraries call by a name, or by Pillow's number.

    Raises:
        SourceError: the service cannot compute it.
    """
    known: dict[object, Interpolation] = {"bilinear": "bilinear", 2: "bilinear", "bicubic": "bicubic", 3: "bicubic"}
    if (found := known.get(name)) is None:
        raise SourceError(
            f"The model resizes its images with the filter {name!r}; only bilinear and bicubic are computed here. "
            "Say --interpolation to take one of them all the same: its answers will differ."
        )
    return found
