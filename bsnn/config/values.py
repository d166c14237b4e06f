"""Values that several sections share, and the base of every section."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)

from bsnn.errors import ConfigError

Weights = Literal["full", "binary"]
Engine = Literal["auto", "bindsnet", "torch", "packed", "triton"]
Population = Literal["all", "positive"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]


def _as_list(value: object) -> object:
    """One value stands for a list of one, so that `--config percentile=99.9` works."""
    values = list(value) if isinstance(value, list | tuple) else [value]
    if any(isinstance(one, bool) for one in values):
        raise ValueError(f"expected a value or a list of values, found {value!r}")
    return values


def _distinct(values: list[Any]) -> list[Any]:
    if len(set(values)) != len(values):
        raise ValueError(f"names a value twice: {values}")
    return values


def _on_grid(value: float) -> float:
    """Percentiles have three decimals from 90 to 100 and one below: the grid of the activation tables."""
    decimals = 3 if value >= 90 else 1
    if Decimal(repr(value)) != round(Decimal(repr(value)), decimals):
        raise ValueError(
            f"{value} is off the grid: three decimals from 90 to 100, one below (for example {round(value, decimals)})"
        )
    return value


Percentile = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False), AfterValidator(_on_grid)]


One = TypeVar("One")
Several = Annotated[list[One], BeforeValidator(_as_list), AfterValidator(_distinct), Field(min_length=1)]
"""One value or a list of different ones."""


class Section(BaseModel):
    """Base of every section: unknown keys are refused, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


_PERCENTILE = TypeAdapter(Percentile)


def check_percentile(value: float) -> float:
    """The value, if it is a percentile of the activation tables.

    Raises:
        ConfigError: out of range, or off the grid.
    """
    try:
        return _PERCENTILE.validate_python(value)
    except ValidationError as error:
        raise ConfigError(f"percentile {value}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None


def format_percentile(percentile: float) -> str:
    """Shortest text of a percentile, as used in paths: 99.9, 100."""
    return f"{percentile:.3f}".rstrip("0").rstrip(".")
