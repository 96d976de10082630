"""Numbers among the parameters of a JSON body: of the right type and in range, or an error that names them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from app.errors import InvalidParameterError


def whole_number_of(parameters: Mapping[str, Any], name: str, *, least: int) -> int | None:
    """Returns a whole number, None if there is none of that name.

    Raises:
        InvalidParameterError: it is no whole number, or less than `least`.
    """
    number = number_of(parameters, name)
    if number is None:
        return None
    if number != int(number) or number < least:
        raise InvalidParameterError(f"{name} must be a whole number of at least {least}.")
    return int(number)


def number_of(parameters: Mapping[str, Any], name: str) -> int | float | None:
    """Returns a number, None if there is none of that name.

    Raises:
        InvalidParameterError: it is no number.
    """
    number = parameters.get(name)
    if number is None:
        return None
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    if not is_number or (isinstance(number, float) and not math.isfinite(number)):  # JSON's 1e999 is infinite
        raise InvalidParameterError(f"{name} must be a number.")
    found: int | float = number
    return found
