"""Values that several sections share, and the base of every section."""

from __future__ import annotations

from collections.abc import Iterable
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


def on_grid(value: float) -> bool:
    """Whether every activation table holds a percentile: three decimals from 90 to 100, one below."""
    exact = Decimal(repr(value))
    return exact == round(exact, _decimals(value))


def _decimals(value: float) -> int:
    return 3 if value >= 90 else 1


def off_grid(value: float) -> str:
    """What to say of a percentile that is not on the grid."""
    nearest = round(value, _decimals(value))
    return f"{value} is off the grid: three decimals from 90 to 100, one below (for example {nearest})"


def _require_grid(value: float) -> float:
    if not on_grid(value):
        raise ValueError(off_grid(value))
    return value


AnyPercentile = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]
Percentile = Annotated[AnyPercentile, AfterValidator(_require_grid)]


One = TypeVar("One")
Several = Annotated[list[One], BeforeValidator(_as_list), AfterValidator(_distinct), Field(min_length=1)]
"""One value or a list of different ones."""


class Section(BaseModel):
    """Base of every section: unknown keys are refused, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


_PERCENTILE = TypeAdapter(Percentile)


def check_percentile(value: float, also: Iterable[float] = ()) -> float:
    """The value, if it is a percentile of the activation tables.

    Args:
        value: percentile.
        also: percentiles that the tables hold beside the grid (`activations.percentiles`).

    Raises:
        ConfigError: out of range, or neither on the grid nor among the others.
    """
    if value in also:
        return value
    try:
        return _PERCENTILE.validate_python(value)
    except ValidationError as error:
        raise ConfigError(f"percentile {value}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None


def format_percentile(percentile: float) -> str:
    """Shortest text of a percentile, as used in paths: 99.9, 100, 99.99995."""
    short = f"{percentile:.3f}".rstrip("0").rstrip(".")
    return short if float(short) == percentile else format(Decimal(repr(percentile)), "f")
