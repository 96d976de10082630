"""The `Predictor`: the definition of how a model prepares an image and classifies it.

uint8 or float (N, 3, H, W) -> resize_and_crop -> (N, 3, S, S) -> classify -> (N, C) probabilities

Everything here is scripted: plain tensor operations and TorchScript's subset of Python, annotations evaluated (no
`from __future__ import annotations`).
"""

import math
from collections.abc import Sequence

import torch
from torch import nn

# ITU-R BT.601 luma, as Pillow's convert("L") and every grey data set made with it.
_LUMA = (0.299, 0.587, 0.114)


class Predictor(nn.Module):
    """An image classifier from pixels to probabilities.

    The shorter side is resized to `resize_size` (antialiased), then the central `image_size` x `image_size` is cut
    out. That equals torchvision's `Resize` + `CenterCrop` to the pixel, and on uint8 Pillow's `Image.resize(..., box)`
    to the bit, columns before rows, which is what the service computes. Only what the crop can see is computed, so that
    the cost is bounded for any aspect ratio. With `squash`, each side is resized to `image_size`, and nothing is cut.

    Args:
        model: the network, which takes normalised images, float32 `(N, channels, S, S)`, and returns logits `(N, C)`.
            It is put into eval mode.
        class_names: the names of the C classes, in the order of the logits.
        image_size: the side S of the crop, in pixels.
        mean: the mean of each channel, of values in [0, 1]; three numbers for an RGB model, one for a grey one.
        std: the standard deviation of each channel, of values in [0, 1]; as many numbers as `mean` has.
        resize_size: the shorter side of an image before the crop, in pixels, at least `image_size`; None takes
            `image_size`.
        interpolation: the filter, `bilinear` or `bicubic` (Keys' with a = -0.5, as Pillow has it).
        fit: `crop` or `squash`.
        temperature: the number that divides the logits (Guo et al. 2017, https://arxiv.org/abs/1706.04599); 1 leaves
            them as they are.

    Raises:
        ValueError: an argument is out of its range.
    """

    mean: torch.Tensor
    std: torch.Tensor
    temperature: torch.Tensor
    luma: torch.Tensor
    class_names: list[str]
    image_size: int
    resize_size: int
    interpolation: str
    fit: str

    def __init__(
        self,
        model: nn.Module,
        class_names: Sequence[str],
        *,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        resize_size: int | None = None,
        interpolation: str = "bilinear",
        fit: str = "crop",
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        resize_size = image_size if resize_size is None else resize_size
        check_numbers(image_size, resize_size, mean, std)
        if interpolation not in ("bilinear", "bicubic") or fit not in ("crop", "squash"):
            raise ValueError(f"interpolation {interpolation!r} and fit {fit!r} cannot be computed.")
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature must be positive and finite, not {temperature}.")
        if not class_names:
            raise ValueError("class_names is empty.")
        self.model = model.eval()
        self.class_names = list(class_names)
        self.image_size = image_size
        self.resize_size = resize_size
        self.interpolation = interpolation
        self.fit = fit
        self.grey = len(mean) == 1
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("temperature", torch.tensor(temperature, dtype=torch.float32))
        self.register_buffer("luma", torch.tensor(_LUMA, dtype=torch.float32).view(1, 3, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Classifies images that all have the same size.

        Args:
            x: RGB images `(N, 3, H, W)`, uint8 or float in [0, 1].

        Returns:
            `(N, C)` float32 probabilities; each row sums to 1.
        """
        return self.classify(self.resize_and_crop(x))

    @torch.jit.export
    def resize_and_crop(self, x: torch.Tensor) -> torch.Tensor:
        """Resizes the shorter side and cuts out the centre.

        Args:
            x: images `(N, 3, H, W)`, uint8 or float.

        Returns:
            images `(N, 3, S, S)` of the same dtype.
        """
        height, width = x.shape[-2], x.shape[-1]
        shorter = min(height, width)
        height_resized, width_resized = self.image_size, self.image_size
        if self.fit == "crop":
            height_resized, width_resized = self.resize_size * height // shorter, self.resize_size * width // shorter
        bicubic = self.interpolation == "bicubic"
        first_row, last_row, rows = _axis_weights(height, height_resized, self.image_size, bicubic)
        first_column, last_column, columns = _axis_weights(width, width_resized, self.image_size, bicubic)
        # float64 keeps Pillow's integer sums exact; Apple's GPUs do not have it.
        accumulator = torch.float32 if x.device.type == "mps" else torch.float64
        rows = rows.to(x.device, accumulator)  # (S, h): of the h source rows that the crop sees
        columns = columns.to(x.device, accumulator).t()  # (w, S)
        seen = x[..., first_row:last_row, first_column:last_column]  # (N, 3, h, w)
        rows_at_a_time = 512  # bounds the float copy of a 10,000 pixels wide picture to 120 MB
        resized = torch.zeros(1, dtype=accumulator, device=x.device)
        for start in range(0, seen.shape[-2], rows_at_a_time):
            stop = min(start + rows_at_a_time, seen.shape[-2])
            narrowed = torch.matmul(seen[..., start:stop, :].to(accumulator), columns)  # (N, 3, rows, S)
            if x.dtype == torch.uint8:
                narrowed = (narrowed + 0.5).floor()
                if bicubic:  # its weights may be negative
                    narrowed = narrowed.clamp(0, 255)
            resized = resized + torch.matmul(rows[:, start:stop], narrowed)  # (N, 3, S, S)
        if x.dtype == torch.uint8:
            resized = (resized + 0.5).floor().clamp(0, 255)
        return resized.to(x.dtype)

    @torch.jit.export
    def classify(self, x: torch.Tensor) -> torch.Tensor:
        """Classifies images that `resize_and_crop` has prepared.

        Args:
            x: RGB images `(N, 3, S, S)`, uint8 or float in [0, 1].

        Returns:
            `(N, C)` float32 probabilities; each row sums to 1.
        """
        with torch.no_grad():
            pixels = x.to(self.mean.dtype)
            if x.dtype == torch.uint8:
                pixels = pixels / 255
            if self.grey:
                pixels = (pixels * self.luma).sum(dim=1, keepdim=True)  # (N, 1, S, S)
            logits = self.model((pixels - self.mean) / self.std)  # (N, C)
            return torch.softmax(logits.to(torch.float32) / self.temperature, dim=1)


def check_numbers(image_size: int, resize_size: int, mean: Sequence[float], std: Sequence[float]) -> None:
    """Checks the numbers of a preprocessing.

    Args:
        image_size: the side of the square that the network sees, in pixels.
        resize_size: the shorter side of an image before the crop, in pixels.
        mean: the mean of each channel, for samples in [0, 1].
        std: the standard deviation of each channel, for samples in [0, 1].

    Raises:
        ValueError: no image can be prepared with them.
    """
    if not 1 <= image_size <= resize_size:
        raise ValueError(f"image_size ({image_size}) must be between 1 and resize_size ({resize_size}).")
    if len(mean) != len(std) or len(mean) not in (1, 3):
        raise ValueError(f"mean and std must both have 1 or 3 values, not {len(mean)} and {len(std)}.")
    if not all(math.isfinite(value) for value in mean):
        raise ValueError(f"mean must be finite, not {tuple(mean)}.")
    if not all(0 < value < math.inf for value in std):
        raise ValueError(f"std must be positive and finite, not {tuple(std)}.")


def _axis_weights(length: int, resized_length: int, crop_size: int, bicubic: bool) -> tuple[int, int, torch.Tensor]:
    """Computes the part of one axis that the central crop sees, and how its pixels mix into the crop's.

    The filter is one source pixel wide to each side, a bicubic one two; more where the image shrinks. Precision is
    Pillow's: a window in float32, weights in units of 2**-22 (`precompute_coeffs` and `normalize_coeffs_8bpc` in
    https://github.com/python-pillow/Pillow/blob/main/src/libImaging/Resample.c). Networks are sensitive to rounding:
    one grey level at every fourth pixel moved probabilities of EfficientNet-Lite0 by up to 0.025.

    Args:
        length: the length of this axis, in pixels.
        resized_length: the length to which this axis is resized, in pixels.
        crop_size: how much of the resized axis is kept at its centre, in pixels.
        bicubic: whether the filter is the bicubic one, and not a triangle.

    Returns:
        the first and the last (exclusive) source pixel that the crop sees, and float64 weights
        `(crop_size, last - first)`, each row of which sums to 1.
    """
    margin = resized_length - crop_size
    offset = margin // 2 + (margin % 2) * (margin // 2 % 2)  # margin / 2, halves to even, as torchvision rounds
    ends = torch.tensor([offset, offset + crop_size], dtype=torch.float64) * length / resized_length
    window = ends.clamp(max=length).to(torch.float32)
    window_start = float(window[0])
    scale = float(window[1] - window[0]) / crop_size
    stretch = max(scale, 1.0)
    support = 2 * stretch if bicubic else stretch
    first = max(int(window_start - support), 0)
    last = min(int(float(window[1]) + support) + 1, length)
    centres = window_start + (torch.arange(crop_size, dtype=torch.float64) + 0.5) * scale  # (S,)
    pixels = torch.arange(first, last, dtype=torch.float64) + 0.5  # (w,)
    distances = (pixels[None, :] - centres[:, None]).abs() / stretch  # (S, w)
    if bicubic:  # Keys 1981, equation 4, with a = -0.5
        near = (1.5 * distances - 2.5) * distances * distances + 1
        far = ((-0.5 * distances + 2.5) * distances - 4) * distances + 2
        weights = torch.where(distances < 1, near, torch.where(distances < 2, far, torch.zeros_like(far)))
    else:
        weights = (1 - distances).clamp(min=0)
    weights = weights / weights.sum(dim=1, keepdim=True)
    return first, last, (weights.abs() * 4194304 + 0.5).floor() * weights.sign() / 4194304
