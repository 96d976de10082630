"""What a study was begun with: kept in its database, and compared when the study goes on.

Search's configuration and space -> describe -> the study's attribute -> check_study -> trials, or a refusal

Trials can only be compared if they share the data, the metric, and every setting that the space does not vary.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import optuna

from training.config.settings import TrainConfig
from training.data.sources import open_source
from training.errors import ConfigError
from training.tuning.search_space import Dimension

_ATTRIBUTE = "begun_with"
# Settings that say where and how fast a trial is trained. Its result does not depend on them. `data` is compared by
# content, because a study may go on where the folder lies elsewhere.
_FREE_SETTINGS = frozenset(
    {
        "data", "data_name", "data_licence", "download_folder", "cache", "cache_limit_mb", "workers", "name", "runs",
        "store", "publish", "device", "threads", "checkpoint_every_steps", "tracking",
    }
)  # fmt: skip


def describe(config: TrainConfig, space: Mapping[str, Dimension]) -> dict[str, str]:
    """Returns what the trials of a study have in common, as texts by name.

    Args:
        config: the configuration that all trials begin with.
        space: the settings that vary.

    Raises:
        DataError: the data cannot be found.
    """
    source = open_source(config.data, download_folder=config.download_folder)
    common = {"data": f"{len(source.labels)} images (digest {source.fingerprint()})"}
    for name, value in config.model_dump(mode="json").items():
        if name not in _FREE_SETTINGS and name not in space:
            common[name] = json.dumps(value)
    for name, dimension in space.items():
        given: dict[str, Any] = dimension.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        common[f"{name} in the space"] = json.dumps(given, sort_keys=True)
    return common


def check_study(study: optuna.Study, config: TrainConfig, space: Mapping[str, Dimension]) -> None:
    """Notes in a new study what it is begun with; refuses to go on with one that was begun with something else.

    Args:
        study: the study, new or found.
        config: the configuration that all trials begin with.
        space: the settings that vary.

    Raises:
        ConfigError: names each difference, and the way out.
        DataError: the data cannot be found.
    """
    now = describe(config, space)
    begun: dict[str, str] | None = study.user_attrs.get(_ATTRIBUTE)
    if begun is None:
        if study.get_trials(deepcopy=False):
            raise ConfigError(
                f"The study {study.study_name!r} does not say what it was begun with, so that its trials may not be "
                "comparable with new ones. Begin another one with --study other."
            )
        study.set_user_attr(_ATTRIBUTE, now)
        return
    changed = [
        f"{name}: {begun.get(name, 'not given')}, now {now.get(name, 'not given')}"
        for name in dict.fromkeys((*begun, *now))
        if begun.get(name) != now.get(name)
    ]
    if changed:
        raise ConfigError(
            f"The study {study.study_name!r} was begun with {'; '.join(changed)}. Its trials cannot be compared with "
            "such new ones. Begin another study with --study other, or give what this one was begun with."
        )
