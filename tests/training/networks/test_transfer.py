"""A pretrained network gets a new head; its backbone is frozen, and thaws from its end."""

from __future__ import annotations

import torch
from torch import nn

from training.networks.transfer import (
    backbone_stages,
    extract_features,
    head_of,
    replace_head,
    set_trainable_stages,
    set_training_mode,
)


class _Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.blocks = nn.Sequential(
            nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)), nn.Sequential(nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8))
        )
        self.classifier = nn.Linear(8, 100)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier(self.blocks(self.stem(x)).mean((2, 3)))
        return logits


def test_new_head_stands_in_for_the_old_one() -> None:
    model = replace_head(_Network(), 5, dropout=0.3)
    name, head = head_of(model)
    assert name == "classifier"
    assert [type(layer) for layer in head.children()] == [nn.Dropout, nn.Linear]
    assert model(torch.zeros(2, 3, 16, 16)).shape == (2, 5)


def test_stages_thaw_from_the_last() -> None:
    model = replace_head(_Network(), 5, dropout=0.3)
    assert len(backbone_stages(model)) == 3

    def learning() -> set[str]:
        return {name.split(".weight")[0] for name, p in model.named_parameters() if p.requires_grad and p.ndim > 1}

    set_trainable_stages(model, 0)
    assert learning() == {"classifier.1"}
    set_trainable_stages(model, 1)
    assert learning() == {"classifier.1", "blocks.1.0"}
    set_trainable_stages(model, None)
    assert learning() == {"classifier.1", "blocks.1.0", "blocks.0.0", "stem"}


def test_frozen_batch_normalisation_keeps_its_statistics() -> None:
    model = _Network()
    set_trainable_stages(model, 1)
    set_training_mode(model)
    frozen, thawed = (model.get_submodule(name) for name in ("blocks.0.1", "blocks.1.1"))
    model(torch.randn(4, 3, 16, 16))
    assert frozen.running_mean.abs().max() == 0  # type: ignore[operator]
    assert thawed.running_mean.abs().max() > 0  # type: ignore[operator]


def test_head_on_features_gives_the_networks_logits() -> None:
    model = replace_head(_Network(), 5, dropout=0.3).eval()
    images = torch.randn(6, 3, 16, 16)
    features = extract_features(model, torch.split(images, 4))
    torch.testing.assert_close(head_of(model)[1](features), model(images))
