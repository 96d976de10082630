"""Losses, optimisers and averages do what their settings say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.support.training_runs import digits_config
from training.fitting.optim import make_average, make_loss, make_optimiser, parameter_groups
from training.networks.build import build_model


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop"])
def test_weights_decay_but_norms_and_biases_do_not(name: str, tmp_path: Path) -> None:
    config = digits_config(tmp_path, optimiser=name, weight_decay=0.1)
    model = build_model(config, 10)
    optimiser = make_optimiser(config, model)
    decay = {id(p): group["weight_decay"] for group in optimiser.param_groups for p in group["params"]}
    found = {parameter_name: decay[id(p)] for parameter_name, p in model.named_parameters()}
    assert len(found) == len(decay)
    for parameter_name, value in found.items():
        decayed = parameter_name.endswith("weight") and "batchnorm" not in parameter_name
        assert value == (0.1 if decayed else 0.0), parameter_name


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop"])
def test_optimiser_lowers_the_loss(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = digits_config(tmp_path, optimiser=name, learning_rate=0.02)
    model = nn.Linear(4, 3)
    optimiser = make_optimiser(config, model)
    inputs, labels = torch.randn(64, 4), torch.randint(3, (64,))
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.02


def test_pretrained_backbone_learns_at_its_own_rate(tmp_path: Path) -> None:
    config = digits_config(
        tmp_path, architecture="efficientnet-lite0", pretrained=True, channels=3, image_size=64, learning_rate=0.01,
        backbone_learning_rate_scale=0.1, frozen_epochs=1,
    )  # fmt: skip
    model = build_model(config, 3)
    rates = {id(p): group["lr"] for group in parameter_groups(config, model) for p in group["params"]}
    for name, parameter in model.named_parameters():
        assert rates[id(parameter)] == pytest.approx(0.01 if name.startswith("classifier") else 0.001), name


def test_balanced_classes_weigh_the_same_in_all(tmp_path: Path) -> None:
    labels = torch.tensor([0] * 30 + [1] * 10)
    weight = make_loss(digits_config(tmp_path, class_weights="balanced"), labels, 2).weight
    torch.testing.assert_close(weight, torch.tensor([40 / 60, 2.0]))


def test_label_smoothing_reaches_the_loss(tmp_path: Path) -> None:
    loss = make_loss(digits_config(tmp_path, label_smoothing=0.1), torch.tensor([0, 1]), 2)
    logits = torch.tensor([[20.0, -20.0]])
    assert float(loss(logits, torch.tensor([0]))) == pytest.approx(0.05 * 40, rel=1e-4)


def test_average_follows_quickly_at_first_and_slowly_later() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = make_average(model, decay=0.9)
    average.update_parameters(model)
    nn.init.ones_(model.weight)
    expected = 0.0
    for step in range(1, 200):
        average.update_parameters(model)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay)
        assert average.module.state_dict()["weight"].item() == pytest.approx(expected, rel=1e-4)
