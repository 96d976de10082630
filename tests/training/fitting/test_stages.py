"""A pretrained network learns first in its head, from features kept in memory, then in its last stages."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.class_folders import write_classes
from tests.support.images import Pixels
from tests.support.training_runs import RunInterruptedError, digits_config, interrupt_after, make_trainer, read_lines
from training.config.settings import TrainConfig
from training.networks.transfer import head_of
from training.runs.run_folder import create_run

pytestmark = pytest.mark.slow


def _photo_config(tmp_path: Path, photos: dict[str, Pixels], **settings: object) -> TrainConfig:
    folder = tmp_path / "photos"
    if not folder.is_dir():
        write_classes(folder, {name: photos[name] for name in ("cat", "coffee", "rocket")}, per_class=14, side=80)
    fixed: dict[str, object] = {
        "data": str(folder), "architecture": "efficientnet-lite0", "pretrained": True, "channels": 3, "image_size": 64,
        "frozen_epochs": 2, "epochs": 2, "batch_size": 8, "horizontal_flip": True,
    }  # fmt: skip
    return digits_config(tmp_path, **(fixed | settings))


def test_frozen_backbone_stays_and_the_head_learns_from_kept_features(
    tmp_path: Path, photos: dict[str, Pixels]
) -> None:
    config = _photo_config(tmp_path, photos, feature_views=2, epochs=4, frozen_epochs=4)
    trainer = make_trainer(config)
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    trainer.fit()
    changed = {name for name, tensor in trainer.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"classifier.1.weight", "classifier.1.bias"}
    assert read_lines(trainer.run.history_file)[-1]["val_accuracy"] >= 0.8


def test_features_or_pixels_give_the_same_validation(tmp_path: Path, photos: dict[str, Pixels]) -> None:
    by_features = make_trainer(_photo_config(tmp_path, photos, feature_views=1))
    by_pixels = make_trainer(_photo_config(tmp_path, photos))
    (features, _), (pixels, _) = (trainer.validate(trainer.stages.for_epoch(0)) for trainer in (by_features, by_pixels))
    assert features == pytest.approx(pixels, rel=1e-4)


def test_backbone_thaws_by_stages_at_a_smaller_rate(tmp_path: Path, photos: dict[str, Pixels]) -> None:
    config = _photo_config(
        tmp_path, photos, feature_views=1, frozen_epochs=1, epochs=2, unfreezing="staged", schedule="constant"
    )
    trainer = make_trainer(config)
    before = {name: tensor.clone() for name, tensor in trainer.model.named_parameters()}
    trainer.fit()
    changed = {name.split(".")[0] for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {"bn2", "classifier"}  # the last stage only
    assert head_of(trainer.model)[0] == "classifier"
    resumed_run = create_run(config)
    first = make_trainer(config, resumed_run)
    with pytest.raises(RunInterruptedError):
        first.fit(interrupt_after(1))
    resumed = make_trainer(config, resumed_run)
    resumed.fit()
    for name, tensor in trainer.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], tensor, rtol=0, atol=0)
