"""
One probability for each regime, from a hidden Markov model and from rules, and one label.

Both are asked about the same candle. Unknown is decided first: where a number is missing, a series is not warm, was
not learned from, or moves as nothing did that training saw, unknown has the probability of that doubt, and what is
left is shared by the others. Of a regime that no hidden state stands for the rules alone speak; the rest is a weighted
mean of the two (a linear opinion pool: Stone, Annals of Mathematical Statistics 32, 1961), so that neither can rule
out what the other is sure of.

The label is the likeliest, of equals the more careful; unknown where its probability is a half or more, or where no
other reaches the least that a label needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from inference.regime.arrays import check_numbers, check_symbols, require
from inference.regime.hidden_markov import Belief, HiddenMarkov, Prepared, advance, doubt, first_belief, prepare
from inference.regime.observing import OBSERVED, columns_of, observe, scales_of
from inference.regime.rules import RegimeRules, by_rules
from inference.regime.states import KNOWN, REGIMES, Floats, Regime, RegimeReading

_STILLEST = 1e-9
"""No market moves by less in a candle, and nothing is told in units of nothing."""
_MOST_CAREFUL_FIRST = (Regime.CRASH, Regime.HIGH_VOLATILITY, Regime.RANGE, Regime.TREND)
_CAREFUL = [KNOWN.index(one) for one in _MOST_CAREFUL_FIRST]


class RegimeModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """
    Everything that regimes are told by, as training exports it: plain arrays in a manifest.

    `names` says which regime each hidden state stands for; several may stand for one. `weight` is what the hidden
    Markov model counts beside the rules, `least` the probability that a label needs. `scales` is the usual
    volatility of each series that training saw, in log return of a candle; of another series nothing is known.
    """

    hidden: HiddenMarkov
    names: tuple[Regime, ...]
    scales: dict[str, float]
    rules: RegimeRules = RegimeRules()
    weight: float = 0.5
    least: float = 0.4

    def __post_init__(self) -> None:
        """Refuse names that do not fit the states, and shares that are none."""
        states = self.hidden.states
        require(len(self.names) == states, f"Each of {states} hidden states needs a name, were {len(self.names)}")
        require(Regime.UNKNOWN not in self.names, "No hidden state stands for what is unknown")
        fits = self.hidden.observed == len(OBSERVED)
        require(fits, f"Hidden states must be told by {OBSERVED}, were told by {self.hidden.observed} numbers")
        check_symbols("Scales", self.scales)
        check_numbers("Usual volatilities", tuple(self.scales.values()), count=len(self.scales), above=_STILLEST)
        require(0 <= self.weight <= 1, f"The weight of the hidden states must lie in [0, 1], was {self.weight}")
        require(0 <= self.least < 1, f"The least probability of a label must lie in [0, 1), was {self.least}")


class Detector(NamedTuple):
    """A model made ready for some symbols and the inputs they come with; a value like the model itself."""

    model: RegimeModel
    symbols: tuple[str, ...]
    hidden: Prepared
    columns: tuple[int, ...]
    scales: Floats
    stands_for: npt.NDArray[np.bool_]


def detector(model: RegimeModel, symbols: Sequence[str], input_names: Sequence[str]) -> Detector:
    """
    Return the detector of a model for `symbols`, in their order.

    Raises:
        ValueError: Inputs that regimes are told from are not among `input_names`.
    """
    stands_for = np.array([[one is known for known in KNOWN] for one in model.names])
    return Detector(
        model,
        tuple(symbols),
        prepare(model.hidden),
        columns_of(input_names),
        scales_of(symbols, model.scales),
        stands_for,
    )


def start(found: Detector) -> Belief:
    """Return what is believed of each symbol before its first candle."""
    return first_belief(found.hidden, len(found.symbols))


def carried(found: Detector, belief: Belief, symbols: Sequence[str]) -> Belief:
    """Return a belief that was of `symbols` for the detector's own: in its order, anew for those it did not know."""
    places = {symbol: row for row, symbol in enumerate(symbols)}
    fresh = start(found)
    here = [row for row, symbol in enumerate(found.symbols) if symbol in places]
    there = [places[found.symbols[row]] for row in here]
    for new, old in zip(fresh, belief, strict=True):
        new[here] = old[there]
    return fresh


def read(found: Detector, before: Belief, inputs: npt.NDArray[Any]) -> tuple[Belief, RegimeReading]:
    """
    Return the belief after one more closed candle of each symbol, and what is said of it.

    Args:
        found: The detector; a row of everything else is of one of its symbols.
        before: The belief after the candle before.
        inputs: Model inputs of the candle [n, M]; a row with a missing input, or one that was not there, is NaN.
    """
    observed = observe(inputs, found.columns, found.scales)
    after = advance(found.hidden, before, observed.hidden)
    shares = by_rules(observed, found.model.rules)
    unknown = np.where(np.isfinite(shares[:, 0]), doubt(found.hidden, after), 1.0)
    known = _pooled(found, after.probability, np.where(np.isfinite(shares), shares, 1 / len(KNOWN)))
    probability = np.concatenate([known * (1 - unknown)[:, None], unknown[:, None]], axis=1)
    return after, RegimeReading(probability, _labels(probability, found.model.least))


def walk_through(found: Detector, before: Belief, inputs: npt.NDArray[Any]) -> Iterator[tuple[Belief, RegimeReading]]:
    """Yield what is believed and said after each candle of `inputs` [T, n, M], oldest first: `read`, one by one."""
    belief = before
    for row in inputs:
        belief, reading = read(found, belief, row)
        yield belief, reading


def _pooled(found: Detector, belief: Floats, shares: Floats) -> Floats:
    hidden = np.stack(
        [np.where(found.stands_for[:, column], belief, 0.0).sum(axis=1) for column in range(len(KNOWN))], axis=1
    )
    told = found.stands_for.any(axis=0)
    # What the rules leave to regimes that hidden states stand for; of the others they alone speak.
    left = np.where(told, shares, 0.0).sum(axis=1)
    weight = found.model.weight
    return np.where(told, weight * hidden * left[:, None] + (1 - weight) * shares, shares)


def _labels(probability: Floats, least: float) -> tuple[Regime, ...]:
    known = probability[:, _CAREFUL]
    best = known.argmax(axis=1)
    sure = (known.max(axis=1) >= least) & (probability[:, REGIMES.index(Regime.UNKNOWN)] < 0.5)
    return tuple(
        _MOST_CAREFUL_FIRST[place] if one else Regime.UNKNOWN
        for place, one in zip(best.tolist(), sure.tolist(), strict=True)
    )
