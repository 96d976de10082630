"""Each schedule follows its formula, with and without warm-up, and goes on where it was saved."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch.optim import SGD

from tests.support.training_runs import digits_config
from training.config.settings import TrainConfig
from training.fitting.schedules import LearningRateSchedule

STEPS = 10  # an epoch
RATE = 0.1


def _optimiser() -> SGD:
    return SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE, momentum=0.9)


def _rates(config: TrainConfig, steps: int) -> list[float]:
    optimiser = _optimiser()
    schedule = LearningRateSchedule(optimiser, config, STEPS)
    rates = []
    for _ in range(steps):
        rates.append(float(optimiser.param_groups[0]["lr"]))
        optimiser.step()
        schedule.after_step()
    return rates


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"schedule": "constant"}, lambda step: 1.0),
        ({"schedule": "step", "step_epochs": 2, "gamma": 0.5}, lambda step: 0.5 ** (step // 20)),
        (
            {"schedule": "multi-step", "milestones": [1, 3], "gamma": 0.5},
            lambda step: 0.5 ** ((step >= 10) + (step >= 30)),
        ),
        ({"schedule": "exponential", "gamma": 0.5}, lambda step: 0.5 ** (step / 10)),
        ({"schedule": "cosine"}, lambda step: (1 + math.cos(math.pi * step / 50)) / 2),
    ],
    ids=lambda value: value["schedule"] if isinstance(value, dict) else "",
)
def test_schedule_follows_its_formula(settings: dict[str, object], expected: object, tmp_path: Path) -> None:
    assert callable(expected)
    rates = _rates(digits_config(tmp_path, epochs=5, **settings), 50)
    assert rates == pytest.approx([RATE * expected(step) for step in range(50)], rel=1e-5, abs=1e-9)


def test_one_cycle_rises_and_falls_to_nothing(tmp_path: Path) -> None:
    rates = _rates(digits_config(tmp_path, epochs=5, schedule="one-cycle"), 50)
    assert rates[0] == pytest.approx(RATE / 25)
    assert max(rates) == pytest.approx(RATE, rel=0.01)
    assert rates.index(max(rates)) in (14, 15)
    assert rates[-1] < RATE / 500


@pytest.mark.parametrize("schedule", ["constant", "cosine", "exponential", "reduce-on-plateau"])
def test_warm_up_rises_to_the_full_rate(schedule: str, tmp_path: Path) -> None:
    rates = _rates(digits_config(tmp_path, epochs=5, schedule=schedule, warmup_epochs=1), 50)
    assert rates[0] == pytest.approx(0.01 * RATE)
    assert rates[:11] == sorted(rates[:11])
    assert rates[10] == pytest.approx(RATE)
    if schedule == "cosine":
        assert rates[30] == pytest.approx(RATE / 2)


def test_plateau_lowers_the_rate_only_without_gain(tmp_path: Path) -> None:
    optimiser = _optimiser()
    config = digits_config(tmp_path, schedule="reduce-on-plateau", plateau_patience=1, gamma=0.1)
    schedule = LearningRateSchedule(optimiser, config, STEPS)
    rates = []
    for loss in (1.0, 0.9, 0.8, 0.8, 0.8, 0.8):
        schedule.after_epoch(loss)
        rates.append(float(optimiser.param_groups[0]["lr"]))
    assert rates == pytest.approx([RATE] * 4 + [RATE / 10] * 2)


@pytest.mark.parametrize("schedule", ["cosine", "one-cycle", "step", "reduce-on-plateau"])
def test_saved_schedule_goes_on_exactly(schedule: str, tmp_path: Path) -> None:
    config = digits_config(tmp_path, epochs=5, schedule=schedule, warmup_epochs=1)
    whole = _rates(config, 50)
    optimiser = _optimiser()
    before = LearningRateSchedule(optimiser, config, STEPS)
    for _ in range(23):
        optimiser.step()
        before.after_step()
    other = _optimiser()
    after = LearningRateSchedule(other, config, STEPS)
    other.load_state_dict(optimiser.state_dict())
    after.load_state_dict(before.state_dict())
    rates = []
    for _ in range(27):
        rates.append(float(other.param_groups[0]["lr"]))
        other.step()
        after.after_step()
    assert rates == whole[23:]
