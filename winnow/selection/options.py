"""Options of a policy: a frozen dataclass whose fields know their limits, read from a mapping of a configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from winnow.errors import UserError

Value = float | int | str | bool
Kind = TypeVar("Kind")


@dataclass(frozen=True)
class NoOptions:
    """The options of a policy that has none."""


def option(
    default: Value,
    least: float = -math.inf,
    most: float = math.inf,
    above: float = -math.inf,
    choices: tuple[str, ...] = (),
) -> Any:
    """Declare a field of an options class: a number from ``least`` (or above ``above``) to ``most``, or a choice."""
    return field(default=default, metadata={"least": least, "most": most, "above": above, "choices": choices})


def read_options(what: str, kind: type[Kind], given: Mapping[str, Value]) -> Kind:
    """Return the options of class ``kind``; ``what`` names their owner in messages.

    Raises :class:`UserError` for a name that the class does not have, a value of another type or out of range.
    """
    known = {known.name: known for known in fields(kind)}  # type: ignore[arg-type]
    values: dict[str, Value] = {}
    for name, value in given.items():
        if name not in known:
            raise UserError(f"{what}, option '{name}': no such option; it has {', '.join(known) or 'none'}")
        values[name] = _checked(f"{what}, option '{name}'", known[name].default, known[name].metadata, value)
    return kind(**values)


def _checked(what: str, default: Any, limits: Mapping[str, Any], value: Value) -> Value:
    if isinstance(default, bool | str):
        allowed = "true or false" if isinstance(default, bool) else " or ".join(limits["choices"])
        if type(value) is not type(default) or (limits.get("choices") and value not in limits["choices"]):
            raise UserError(f"{what}: {value!r}; expected {allowed}")
        return value
    whole = isinstance(default, int)
    expected = f"a {'whole' if whole else 'finite'} number"
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"{what}: {value!r}; expected {expected}")
    if limits["above"] > -math.inf:
        expected += f" above {limits['above']:g}"
    if limits["least"] > -math.inf:
        expected += f", at least {limits['least']:g}"
    if limits["most"] < math.inf:
        expected += f", at most {limits['most']:g}"
    in_range = limits["least"] <= value <= limits["most"] and value > limits["above"]
    if not in_range or (whole and value != int(value)):
        raise UserError(f"{what}: {value!r}; expected {expected}")
    return int(value) if whole else float(value)
