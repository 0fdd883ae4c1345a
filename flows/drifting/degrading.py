"""Whether a champion delivers less than it showed at promotion: a sequential test that may be looked at any time."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt
from scipy.special import log_ndtr, ndtri, stdtr

Floats = npt.NDArray[np.float64]

FEWEST_BLOCKS = 8
"""Below so many blocks at promotion nothing is claimed: what was expected is not known well enough."""
KEPT = 0.5
"""The share of its skill that a champion may lose: what a chosen version showed is more than it has, on average."""
_MIXING = 1.0
_MOST_INFLATION = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """
    One figure of performance, better when higher, and what of it must be kept.

    Held to is `kept` of what was shown at promotion, less `margin`. `kept` of 0 holds a figure against zero.
    """

    name: str
    kept: float
    margin: float
    unit: str


MEASURES = (
    Measure(name="net_per_slot_bps", kept=KEPT, margin=0.0, unit="bps"),
    Measure(name="net_below_flat_bps", kept=0.0, margin=0.0, unit="bps"),
    Measure(name="ic", kept=KEPT, margin=0.0, unit=""),
    Measure(name="rmse_skill", kept=KEPT, margin=0.0, unit=""),
    Measure(name="hit_rate_above_half", kept=KEPT, margin=0.0, unit=""),
    Measure(name="brier_gain", kept=KEPT, margin=0.0, unit=""),
    # Hits less the probability that was stated for them: below zero a model is surer than it may be.
    Measure(name="calibration", kept=1.0, margin=0.02, unit=""),
)
"""What is watched; each is a mean over blocks of time."""


class MeasureFound(msgspec.Struct, frozen=True, kw_only=True):
    """One figure: as shown at promotion, as delivered since, the least that it is held to, and the evidence against."""

    name: str
    unit: str
    expected: float
    observed: float
    held_to: float
    blocks_before: int
    blocks_now: int
    evidence: float


class Degradation(msgspec.Struct, frozen=True, kw_only=True):
    """
    What the sequential test says.

    `evidence` is the largest e-value that was reached since promotion; where nothing got worse it ever reaches `limit`
    with probability 1 / `limit` at most. `days` is how long outcomes have matured.
    """

    state: str
    note: str
    evidence: float
    limit: float
    days: float
    measures: tuple[MeasureFound, ...] = ()

    @property
    def found(self) -> bool:
        """Whether the champion degraded."""
        return self.evidence >= self.limit


def degradation(before: dict[str, Floats], now: dict[str, Floats], *, rate: float, days: float) -> Degradation:
    """
    Test whether blocks since promotion are worse than those that a champion was promoted on.

    Of each measure, the mean of the new blocks is held against what is kept of the old mean. In units of the old
    blocks' deviation the contrast, times its information 1 / (1/n + kept²/m), is a Brownian motion in that information
    where nothing changed, so Robbins' one-sided normal mixture gives an e-process (Robbins 1970; Howard and others,
    2021): however often it is looked at, it ever exceeds 1 / rate with probability `rate` at most. That the old mean is
    itself an estimate is inside; that the deviation is, by reading the contrast as a Student's t. Measures are
    averaged, which keeps the bound whatever their dependence. Blocks that depend on the one before widen the deviation.

    Args:
        before: Of each measure, a value for each block at promotion, oldest first; NaN where a block has none.
        now: The same since then.
        rate: Probability of ever being called degraded while nothing got worse, over a champion's whole life.
        days: How long outcomes have matured, for the record.
    """
    limit = 1 / rate
    clean = {name: values[np.isfinite(values)] for name, values in before.items()}
    usable = [one for one in MEASURES if _is_usable(one, clean)]
    if not usable:
        note = f"fewer than {FEWEST_BLOCKS} blocks of outcomes at promotion: nothing can be expected of this champion"
        return Degradation(state="too-few", note=note, evidence=0.0, limit=limit, days=days)
    paths = {one.name: _path(one, clean[one.name], now[one.name]) for one in usable}
    blocks = max(len(values) for values in now.values())
    if not blocks or not any(np.isfinite(now[one.name]).any() for one in usable):
        note = "no block of outcomes has matured since promotion"
        return Degradation(state="too-new", note=note, evidence=0.0, limit=limit, days=days)
    together = np.mean(list(paths.values()), axis=0)
    found = tuple(_found(one, clean[one.name], now[one.name], paths[one.name]) for one in usable)
    evidence = float(together.max())
    worst = max(found, key=lambda one: one.evidence)
    note = (
        f"{worst.name} says most: {worst.observed:.4g} since promotion, {worst.expected:.4g} at promotion, "
        f"held to {worst.held_to:.4g}"
    )
    return Degradation(state="judged", note=note, evidence=evidence, limit=limit, days=days, measures=found)


def _is_usable(measure: Measure, before: dict[str, Floats]) -> bool:
    values = before.get(measure.name)
    return values is not None and len(values) >= FEWEST_BLOCKS and float(values.std()) > 0


def _kept(measure: Measure, mean: float) -> float:
    # Of a loss nothing has to be kept: it is held against itself.
    return measure.kept if mean > 0 or measure.kept == 0 else 1.0


def _found(measure: Measure, before: Floats, now: Floats, path: Floats) -> MeasureFound:
    mean, there = float(before.mean()), now[np.isfinite(now)]
    return MeasureFound(
        name=measure.name,
        unit=measure.unit,
        expected=mean,
        observed=float(there.mean()) if len(there) else float("nan"),
        held_to=_kept(measure, mean) * mean - measure.margin,
        blocks_before=len(before),
        blocks_now=len(there),
        evidence=float(path.max()) if len(path) else 1.0,
    )


def _path(measure: Measure, before: Floats, now: Floats) -> Floats:
    """Return the e-value of a measure after each new block."""
    mean, blocks = float(before.mean()), len(before)
    kept = _kept(measure, mean)
    deviation = float(before.std(ddof=1)) * np.sqrt(_inflation(before))
    there = np.isfinite(now)
    count = np.cumsum(there)
    with np.errstate(divide="ignore", invalid="ignore"):
        worse = kept * mean - measure.margin - np.cumsum(np.where(there, now, 0.0)) / count
        information = 1 / (1 / count + kept**2 / blocks)
    t = worse / deviation * np.sqrt(information)
    z = ndtri(np.clip(stdtr(blocks - 1, t), 1e-15, 1 - 1e-15))
    path: Floats = np.where(count > 0, e_value(z, np.where(count > 0, information, 1.0)), 1.0)
    return path


def _inflation(values: Floats) -> float:
    """By how much dependence on the block before widens the variance of a mean; never below 1."""
    centred = values - values.mean()
    first = float(centred[1:] @ centred[:-1]) / max(float(centred @ centred), 1e-300)
    return min(max((1 + first) / max(1 - first, 1e-9), 1.0), _MOST_INFLATION)


def e_value(z: Floats, information: Floats) -> Floats:
    """Return the one-sided normal mixture at a standardised contrast after so much information (Robbins, 1970)."""
    share = information / (information + _MIXING)
    exponent = np.log(2) + 0.5 * np.log1p(-share) + 0.5 * z**2 * share + log_ndtr(z * np.sqrt(share))
    evidence: Floats = np.exp(np.minimum(exponent, 600.0))
    return evidence
