"""Brings the default model of image-predictor, which finds it through the entry point in pyproject.toml."""

from pathlib import Path

STORE = Path(__file__).with_name("model_store")
"""A folder like a model store: `imagenet/<version>/`."""
