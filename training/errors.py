"""The errors of training. Each tells the way out; the command line prints its sentence and ends with status 1."""

from __future__ import annotations


class TrainingError(Exception):
    """Base of the errors of training that a person can do something about."""


class ConfigError(TrainingError):
    """A setting that is unknown, out of its range, or impossible together with another."""


class DataError(TrainingError):
    """The data cannot be trained on as they are."""


class RunError(TrainingError):
    """A run folder that cannot be written, read or continued."""


class DivergedError(TrainingError):
    """The loss is not a finite number any more."""


class ExportError(TrainingError):
    """An exported model does not compute what the eager one does; nothing was published."""


class NotDrawableError(TrainingError):
    """The network has nothing of the kind that was to be drawn."""


class SourceError(TrainingError):
    """A model that was trained elsewhere cannot be read, or is not an image classifier that can be published."""
