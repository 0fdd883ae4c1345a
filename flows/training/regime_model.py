"""
Learn from the fit window what regimes are told by: what is usual for each series, hidden states, and their names.

A hidden state is named by what was learned of it, in terms of what is usual for a series:

- its volatility by its mean log volatility, against the terciles of all candles: in the upper one, and at least half as
  large again as usual, it is wild;
- its drift by how far the price goes in a usual stay, of which only what does not overlap counts, in standard
  deviations of chance over as long: from 1 on it goes somewhere.

Wild and falling is a crash, wild is high volatility, drifting is a trend, and the rest is range. Several states may
have one name, and a name may have none: then the rules alone speak of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_store.errors import BadInputError
from flows.training.dataset import Dataset, Floats
from flows.training.hidden_markov import MOST_ROUNDS, FittedStates, fit_states
from inference.models.manifest import TimeWindow
from inference.regime.detector import RegimeModel
from inference.regime.hidden_markov import HiddenMarkov, first_belief, prepare, walk
from inference.regime.observing import INPUT_NAMES, OBSERVED, OVERLAP, columns_of, observe, scales_of
from inference.regime.states import Regime

_EXPECTED = ((0.0, 0.0), (1.0, 0.0), (-1.0, 0.0), (0.0, 0.4), (0.0, 1.0), (-2.0, 1.0))
"""Where the first guess looks, in usual moves: a range, two trends, what is between calm and wild, wild, a crash."""
STATES = len(_EXPECTED)
_LEAST_STAY = 24.0
"""Two hours of 5m candles: what lasts for less is no regime that a decision for the next hour can use."""
_STRETCH = 256
"""Candles of a stretch: about a day of 5m candles, and most stays in a state are shorter."""
MOST_STRETCHES = 400
"""A hundred thousand candles: twice as many took twice as long and gave the same states."""
_LEAST_OF_A_SERIES, _STILLEST = 200, 1e-9
_MEMORY = 24
_RARE, _UNSEEN = 0.01, 0.001
_EXTREME = 1e-4
_WILD_AT_LEAST = math.log(1.5)
_DRIFTS_FROM = 1.0
_LONGEST_STAY = 288.0
_TERCILE = 2 / 3
_RETURN, _LOG_VOLATILITY = OBSERVED.index("return"), OBSERVED.index("log_volatility")


@dataclass(frozen=True, slots=True, eq=False)
class LearnedRegimes:
    """
    A model of regimes, and what is to be told of how it was found.

    `doubted` is the share of training's own candles, past the warm-up, on which its filter would have said unknown: the
    rate of false alarms on a market that has not changed.
    """

    model: RegimeModel
    states: FittedStates
    doubted: float


def learn_regime_model(
    dataset: Dataset,
    window: TimeWindow,
    *,
    seed: int,
    states: int = STATES,
    stretches: int = MOST_STRETCHES,
    rounds: int = MOST_ROUNDS,
) -> LearnedRegimes:
    """
    Learn on the candles of a window, and on nothing else: on so many stretches of a day, in so many rounds at the most.

    A candle counts where its inputs are all finite and it follows the candle before it; a series counts where it has
    moved and has some 200 such candles.

    Raises:
        BadInputError: There is too little of that, or it has fewer states.
    """
    columns = _columns(dataset)
    inside = (dataset.open_time_ms >= window.start_ms) & (dataset.open_time_ms < window.end_ms)
    inside &= np.isfinite(dataset.inputs_all[:, columns]).all(axis=1) & ~dataset.excluded
    scales = _scales(dataset, inside, columns)
    if not scales:
        raise BadInputError(f"No series moves on {_LEAST_OF_A_SERIES} candles of the window; load more days")
    observed = _hidden(dataset, columns, scales)
    inside &= np.isfinite(observed).all(axis=1)
    lowest, highest = np.quantile(observed[inside], [_EXTREME, 1 - _EXTREME], axis=0)
    if not (lowest < highest).all():
        raise BadInputError("A number never changes: there is nothing to learn from constant prices")
    days = np.clip(_stretches(dataset, inside, observed, stretches), lowest, highest)
    fitted = fit_states(
        days,
        states=states,
        seed=seed,
        ordered_by=_LOG_VOLATILITY,
        least_stay=_LEAST_STAY,
        overlap=OVERLAP,
        rounds=rounds,
    )
    edge = float(np.quantile(observed[inside, _LOG_VOLATILITY], _TERCILE))
    bounds = (tuple(lowest.tolist()), tuple(highest.tolist()))
    hidden, doubted = _with_levels(fitted, bounds, days)
    names = tuple(_name(fitted, state, edge) for state in range(states))
    return LearnedRegimes(RegimeModel(hidden=hidden, names=names, scales=scales), fitted, doubted)


def _columns(dataset: Dataset) -> list[int]:
    try:
        return list(columns_of(dataset.input_names))
    except ValueError as error:
        raise BadInputError(str(error)) from error


def _scales(dataset: Dataset, inside: npt.NDArray[np.bool_], columns: list[int]) -> dict[str, float]:
    volatility = dataset.inputs_all[:, columns[INPUT_NAMES.index("volatility_20")]]
    found = {}
    for number, symbol in enumerate(dataset.symbols):
        own = inside & (dataset.series == number)
        usual = float(np.median(volatility[own])) if own.sum() >= _LEAST_OF_A_SERIES else 0.0
        if usual > _STILLEST:
            found[symbol] = usual
    return found


def _hidden(dataset: Dataset, columns: list[int], scales: dict[str, float]) -> Floats:
    by_series = scales_of(dataset.symbols, scales)
    return np.asarray(observe(dataset.inputs_all, columns, by_series[dataset.series]).hidden, np.float64)


def _stretches(dataset: Dataset, inside: npt.NDArray[np.bool_], observed: Floats, most: int) -> Floats:
    """Return whole stretches of candles that follow one another [S, L, D], spread evenly where there are many."""
    follows = np.zeros(len(inside), bool)
    follows[1:] = (np.diff(dataset.open_time_ms) == dataset.timeframe_ms) & (np.diff(dataset.series) == 0)
    # A run goes on while candles follow and count; its first candle needs none before it.
    place = np.arange(len(inside))
    begins = inside & ~(follows & np.roll(inside, 1))
    since = place - np.maximum.accumulate(np.where(begins, place, 0))
    ends = np.flatnonzero(inside & (since % _STRETCH == _STRETCH - 1))
    if len(ends) > most:
        ends = ends[np.linspace(0, len(ends) - 1, most).round().astype(np.int64)]
    return np.asarray(observed[ends[:, None] + np.arange(1 - _STRETCH, 1)], np.float64)


def _with_levels(
    fitted: FittedStates, bounds: tuple[tuple[float, ...], tuple[float, ...]], stretches: Floats
) -> tuple[HiddenMarkov, float]:
    """Return the model with the log densities that are rare and unseen in training, and how much of it is doubted."""
    lowest, highest = bounds

    def model(unseen: float, rare: float) -> HiddenMarkov:
        return HiddenMarkov(
            start=_tuple(fitted.start),
            transitions=tuple(_tuple(row) for row in fitted.transitions),
            means=tuple(_tuple(row) for row in fitted.means),
            variances=tuple(_tuple(row) for row in fitted.variances),
            lowest=lowest,
            highest=highest,
            overlap=OVERLAP,
            unseen=unseen,
            rare=rare,
            memory=_MEMORY,
            warm_up=_MEMORY,
        )

    prepared = prepare(model(-1.0, 0.0))
    beliefs = walk(prepared, first_belief(prepared, len(stretches)), np.swapaxes(stretches, 0, 1))
    surprises = np.stack([one.surprise for one in beliefs])[_MEMORY - 1 :]
    unseen, rare = (float(one) for one in np.quantile(surprises, [_UNSEEN, _RARE]))
    # A label says unknown from the middle on.
    return model(unseen, max(rare, np.nextafter(unseen, np.inf))), float((surprises < (unseen + rare) / 2).mean())


def _name(fitted: FittedStates, state: int, wild_from: float) -> Regime:
    stay = min(1 / max(1 - float(fitted.transitions[state, state]), 1 / _LONGEST_STAY), _LONGEST_STAY)
    spread = math.sqrt(float(fitted.variances[state, _RETURN]))
    drift = float(fitted.means[state, _RETURN]) * math.sqrt(max(stay / OVERLAP, 1.0)) / spread
    is_wild = float(fitted.means[state, _LOG_VOLATILITY]) >= max(wild_from, _WILD_AT_LEAST)
    if is_wild:
        return Regime.CRASH if drift <= -_DRIFTS_FROM else Regime.HIGH_VOLATILITY
    return Regime.TREND if abs(drift) >= _DRIFTS_FROM else Regime.RANGE


def _tuple(values: Floats) -> tuple[float, ...]:
    return tuple(float(one) for one in values)
