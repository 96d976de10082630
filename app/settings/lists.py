"""Reads a list that is one option or variable: its parts are separated by commas."""

from __future__ import annotations


def split_commas(value: str) -> tuple[str, ...]:
    """Returns the parts of a list, without blanks around them and without empty ones."""
    return tuple(part.strip() for part in value.split(",") if part.strip())
