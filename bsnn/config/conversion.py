"""From a trained network to a spiking one: activations, thresholds, simulation, and methods for few time steps."""

from __future__ import annotations

from pydantic import Field, PositiveInt, model_validator

from bsnn.config.method import METHODS, Method
from bsnn.config.values import AnyPercentile, Name, Percentile, Population, Section, Several, Weights
from bsnn.errors import ConfigError

EXIT_EVERY = 4  # time steps between two looks at the margins, with early exit


class Activations(Section):
    """Calibration images for the percentiles: training images, without augmentation, with dropout off."""

    images: PositiveInt = Field(3500, description="Number of training images (evenly spaced; all if there are fewer).")
    batch_size: PositiveInt = Field(
        100,
        description="Images per forward pass; part of the identity, since it changes last bits of activations.",
    )
    percentiles: list[AnyPercentile] = Field(
        [],
        description="Percentiles that the table holds beside three decimals from 90 to 100 and one below: 99.99995.",
    )


class Thresholds(Section):
    """How thresholds are read from the activation table."""

    population: Population = Field(
        "all",
        description="Percentile over all post-ReLU values, zeros included (as the original), or positive ones.",
    )


class Simulation(Section):
    """The spiking simulation."""

    time: PositiveInt = Field(description="Simulated time steps T.")
    initial: float = Field(0.0, ge=0, lt=1, description="Initial membrane potential, as a fraction of the threshold.")
    images: PositiveInt | None = Field(
        None, description="Simulate only this many test images (evenly spaced); trains nothing again."
    )
    shards: PositiveInt = Field(1, description="Jobs over which the test set is spread.")


class Search(Section):
    """Search for the best switches on training images that calibrate nothing; the test set is seen once, at the end."""

    time: PositiveInt | None = Field(None, description="Wanted number of time steps; 16 if no drop is wanted either.")
    drop: float | None = Field(
        None, description="Wanted drop from the ANN, in points: the fewest steps of latency.time that reach it."
    )
    images: PositiveInt = Field(500, description="Held-out training images.")
    percentiles: list[Percentile] = Field(
        default=[98.0, 99.0, 99.5, 99.8, 99.9, 99.95], description="Percentiles that are tried."
    )
    slack: float | None = Field(
        0.5,
        ge=0,
        description="Points: what the ideal curve says can win no more is passed over; null: everything is tried.",
    )

    @model_validator(mode="after")
    def _one_wish(self) -> Search:
        if self.time is not None and self.drop is not None:
            raise ValueError("give the wanted `time` or the wanted `drop`, not both")
        return self


class EarlyExit(Section):
    """Images leave once their margin reaches a bound, which is chosen on training images that calibrate nothing.

    Margins are looked at after every fourth step.
    """

    method: Name = Field("half-threshold", description="Method of conversion; one that does not depend on T.")
    loss: float = Field(0.5, ge=0, description="Points of accuracy that the chosen bound may cost on held-out images.")
    images: PositiveInt = Field(500, description="Held-out training images.")


class Latency(Section):
    """Accuracy in few time steps: a baseline and other methods of conversion, side by side."""

    percentile: Percentile = Field(99.9, description="Thresholds of the baseline, and of methods that name none.")
    time: Several[PositiveInt] = Field(
        default=[1, 2, 4, 8, 16, 32, 64, 128], description="Time steps T; no more than these are simulated."
    )
    images: PositiveInt = Field(128, description="Training images that corrections are measured on.")
    methods: dict[Name, Method] = Field(
        default_factory=lambda: {name: Method.model_validate(switches) for name, switches in METHODS.items()},
        description="Switches by method; `baseline`, without any, is always there.",
    )
    ideal: list[Percentile] = Field(
        default=[], description="Percentiles whose ideal quantised curves are wanted beside those of the methods."
    )
    search: Search = Search()
    early_exit: EarlyExit = EarlyExit()

    @model_validator(mode="after")
    def _baseline_is_plain(self) -> Latency:
        if "baseline" in self.methods:
            raise ValueError("methods.baseline: the baseline is always there and has no switches; use another name")
        return self

    @model_validator(mode="after")
    def _methods_have_their_times(self) -> Latency:
        times = sorted({*self.time, *self.searched})
        for name, method in self.methods.items():
            if name in METHODS and method == Method.model_validate(METHODS[name]):  # they are for any times
                continue
            if method.percentiles and not set(method.percentiles) & set(times):
                raise ValueError(
                    f"methods.{name}.percentiles: none of its times is in latency.time or latency.search.time, {times}"
                )
            if method.second_pass != "none" and method.first_pass >= times[-1]:
                raise ValueError(
                    f"methods.{name}.first_pass: after {method.first_pass} of at most {times[-1]} time steps "
                    "(latency.time, latency.search.time) no second pass begins"
                )
        return self

    @model_validator(mode="after")
    def _exit_needs_a_curve(self) -> Latency:
        name = self.early_exit.method
        if name == EarlyExit().method:  # own methods do not have to name the default's, nor leave it as it is
            return self
        if name not in self.names:
            raise ValueError(f"early_exit.method: there is no method '{name}'; methods: {', '.join(self.names)}")
        if self.method(name).per_time:
            raise ValueError(f"early_exit.method: '{name}' is fitted to one number of steps; take one that is not")
        return self

    def method(self, name: str) -> Method:
        """Switches of a method.

        Raises:
            ConfigError: there is none of that name.
        """
        if name not in self.names:
            raise ConfigError(f"there is no method '{name}'; methods: {', '.join(self.names)}")
        return Method() if name == "baseline" else self.methods[name]

    def ideals(self, weights: Weights) -> dict[str, Method]:
        """Thresholds and rounding of each ideal curve of a kind of network, under the first method that has it.

        Those of `ideal`, which cut off as the baseline does, are named by their percentile: p99.9.
        """
        methods = {name: self.method(name).even(self.percentile) for name in self.names_for(weights)}
        alone = {f"p{float(percentile)}": Method(percentile=percentile) for percentile in self.ideal}
        found: dict[str, Method] = {}
        for name, method in {**methods, **alone}.items():
            if method is not None and method not in found.values():
                found[name] = method
        return found

    def curve(self, name: str, weights: Weights) -> Method:
        """Thresholds and rounding of an ideal curve.

        Raises:
            ConfigError: there is none of that name.
        """
        curves = self.ideals(weights)
        if name not in curves:
            raise ConfigError(f"there is no ideal curve '{name}' of {weights} networks, only: {', '.join(curves)}")
        return curves[name]

    def ideal_of(self, name: str, weights: Weights) -> str | None:
        """Name of a method's ideal curve among `ideals`; None where it has none."""
        even = self.method(name).even(self.percentile)
        return next((curve for curve, method in self.ideals(weights).items() if method == even), None)

    def runs(self, name: str) -> list[int]:
        """Numbers of steps that a method is simulated for: the longest one shows all others, if it does not matter."""
        return sorted(self.time) if self.method(name).per_time else [max(self.time)]

    @property
    def searched(self) -> list[int]:
        """Numbers of steps that a search is for, from few to many: one, unless it is for a drop."""
        return [self.search.time or 16] if self.search.drop is None else sorted(self.time)

    @property
    def exit_method(self) -> str:
        """Method whose images leave early: the baseline where the default's is missing, or fitted to one T."""
        name = self.early_exit.method
        return name if name in self.names and not self.method(name).per_time else "baseline"

    @property
    def names(self) -> list[str]:
        """All methods, the baseline first."""
        return ["baseline", *self.methods]

    def names_for(self, weights: Weights) -> list[str]:
        """Methods that a kind of network can have."""
        return [name for name in self.names if weights == "full" or not self.method(name).full_only]
