"""Switches of a conversion: a method for few time steps is a section with any of them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveInt, model_validator

from bsnn.config.values import Percentile, Section


class Method(Section):
    """Switches of the conversion, on top of percentile thresholds; without any, the baseline of the experiment."""

    percentile: Percentile | None = Field(None, description="Thresholds at this percentile, not at latency.percentile.")
    percentiles: dict[PositiveInt, Percentile] = Field(
        default_factory=dict, description="Percentile for each reported time; others use `percentile`."
    )
    threshold: Literal["percentile", "squared-error", "balanced"] = Field(
        "percentile",
        description="`squared-error`: thresholds with the least squared error of activations in T steps; `balanced`: "
        "local threshold balancing on calibration images.",
    )
    initial: float = Field(0.0, ge=0, lt=1, description="Initial membrane potential, as a fraction of the threshold.")
    shift: bool = Field(False, description="Half a threshold spread over T steps, instead of an initial potential.")
    signed: bool = Field(False, description="Negative spikes take back what was sent too early.")
    negative_threshold: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Negative threshold of signed neurons, as a fraction of the threshold; 0: spikes are taken back as "
        "soon as the potential is below zero.",
    )
    correction: Literal["none", "potential", "channel", "bias", "temporal"] = Field(
        "none",
        description="Mean error on calibration images, added to the potentials of each neuron or channel, or "
        "to the currents of each channel, for all steps alike or (temporal) for each.",
    )
    delay: int = Field(0, ge=0, description="First steps that the read-out leaves out, while at least 4 remain.")
    second_pass: Literal["none", "srp", "cos"] = Field(
        "none", description="Start again from what a first pass left in the membranes of the image's neurons."
    )
    first_pass: PositiveInt = Field(4, description="Steps of the first of two passes; they count as time steps.")
    channels: bool = Field(
        False, description="The percentile of each channel instead of the layer's; full-precision networks only."
    )
    burst: int = Field(
        1, ge=1, le=15, description="Most spikes a neuron sends in one step; more than 1: full-precision networks only."
    )

    @property
    def per_time(self) -> bool:
        """Whether the network depends on the number of time steps, so that each time is simulated by itself."""
        fitted = self.threshold == "squared-error" or self.correction != "none"
        return fitted or self.shift or bool(self.percentiles)

    def percentile_at(self, steps: int, otherwise: float) -> float:
        """Percentile of the thresholds for some time steps; `otherwise` where the method names none."""
        return self.percentiles.get(steps, otherwise if self.percentile is None else self.percentile)

    def for_time(self, steps: int, otherwise: float) -> Method:
        """The same method with its percentile for some time steps alone; `otherwise` where it names none."""
        if self.threshold != "percentile":
            return self
        return self.model_copy(update={"percentile": self.percentile_at(steps, otherwise), "percentiles": {}})

    def even(self, otherwise: float) -> Method | None:
        """Its thresholds and rounding alone, which decide the ideal curve; None where each image has its own network.

        `otherwise`: percentile where the method names none.
        """
        if self.second_pass != "none":
            return None
        percentile = otherwise if self.percentile is None else self.percentile
        own = {"percentile": percentile, "percentiles": self.percentiles} if self.threshold == "percentile" else {}
        initial = 0.5 if self.shift else self.initial
        kept = {"threshold": self.threshold, "initial": initial, "channels": self.channels, "burst": self.burst}
        return Method.model_validate({**kept, **own})

    @property
    def calibrated(self) -> bool:
        """Whether something of it is measured on calibration images."""
        return self.channels or self.threshold == "balanced" or self.correction != "none"

    @property
    def full_only(self) -> bool:
        """Whether binary networks cannot have it: spikes of several sizes, or of different size by channel."""
        return self.channels or self.burst > 1

    @model_validator(mode="after")
    def _counts_nothing_twice(self) -> Method:
        charged = [name for name in ("initial", "shift") if getattr(self, name)]
        if len(charged) > 1:
            raise ValueError("initial and shift both add half a threshold by step T, which would count twice: use one")
        if self.shift and self.correction != "none":
            raise ValueError("a correction measures all that is missing by step T, the shift adds it again: use one")
        if self.second_pass != "none" and self.correction != "none":
            raise ValueError(
                "a correction is measured over one pass of T steps, and a second pass starts from potentials chosen "
                "for the image: both would move the same potentials for the same error; use one"
            )
        if self.second_pass != "none" and (self.signed or self.delay or self.per_time):
            raise ValueError(
                "second_pass takes back spikes sent too early, restarts the read-out and has fewer steps than T: it "
                "cannot be combined with signed spikes, delay, or settings that are fitted to T"
            )
        if self.negative_threshold != 1 and not self.signed:
            raise ValueError("a negative threshold is that of signed spikes: give `signed: true` as well")
        if self.first_pass != 4 and self.second_pass == "none":
            raise ValueError("first_pass is that of a second pass: give `second_pass` as well")
        if self.threshold != "percentile" and (self.percentile is not None or self.percentiles):
            raise ValueError(f"threshold {self.threshold} chooses thresholds by itself: leave the percentile out")
        return self

    @model_validator(mode="after")
    def _serves_full_precision(self) -> Method:
        if self.channels and self.threshold != "percentile":
            raise ValueError(f"channels takes percentiles, {self.threshold} fits whole layers: use one")
        if self.burst > 1 and self.threshold != "percentile":
            raise ValueError(f"{self.threshold} fits neurons of one spike per step: use percentiles with a burst")
        if self.burst > 1 and (self.signed or self.second_pass != "none"):
            raise ValueError(
                "a burst sends at once what was held back; signed spikes and a second pass are for neurons of one "
                "spike per step: use one"
            )
        return self


METHODS: dict[str, dict[str, Any]] = {
    "half-threshold": {"initial": 0.5},
    "shift": {"shift": True},
    "percentile-by-time": {"percentiles": {1: 97.0, 2: 98.0, 4: 99.0, 8: 99.5, 16: 99.8}},
    "squared-error": {"threshold": "squared-error"},
    "balanced": {"threshold": "balanced", "initial": 0.5},
    "delayed-readout": {"delay": 8},
    "potential-correction": {"correction": "potential"},
    "channel-correction": {"correction": "channel"},
    "bias-correction": {"correction": "bias"},
    "temporal-correction": {"correction": "temporal"},
    "signed": {"signed": True},
    "settled": {"initial": 0.5, "signed": True, "negative_threshold": 0.0},
    "srp": {"initial": 0.5, "second_pass": "srp"},
    "cos": {"initial": 0.5, "second_pass": "cos"},
    "channel-thresholds": {"channels": True},
    "burst": {"burst": 5},
    "best": {
        "threshold": "squared-error",
        "initial": 0.5,
        "correction": "potential",
        "signed": True,
        "negative_threshold": 0.0,
    },
}
"""Each switch alone (`balanced` as published, `settled`: both with half a threshold at the start, so that counts are
rounded), and one combination (`best`).

They are the same everywhere; `snakemake search` finds a network's own. Bursts of up to 5 as in Li & Zeng 2022 (IJCAI).
Methods for full-precision networks only are left out for binary ones.
"""
