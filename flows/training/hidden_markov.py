"""
Fit a hidden Markov model with diagonal normal densities by expectation maximisation.

Baum, Petrie, Soules and Weiss (Annals of Mathematical Statistics 41, 1970) as Rabiner writes it (Proceedings of the
IEEE 77, 1989, equations 19-25, 40 and 52-54), over many stretches of candles at once, each of one length. Densities
are logarithms, divided by the overlap of what is observed (`inference.regime.hidden_markov` says why; what is
maximised is that composite likelihood, and each round still raises it). The largest of a candle is taken off before
they are exponentiated, and forward and backward variables are scaled candle by candle; with transitions that stay
above a floor, nothing underflows.

A state is to last: `least_stay` candles on average at the least. Without that a state per shape of candle (a long one,
one that closed where it opened) fits better than a state per kind of market. A row of transitions that would leave
sooner is put on that bound, the rest in proportion, which is where its likelihood is greatest within the bound; so the
likelihood still never falls.

There are several starts, drawn from a seed: each runs a few rounds, the most likely of those that kept all their
states goes on until it no longer gains. A state that nearly no candle is in is a start that failed and never an
answer. States come out ordered by the mean of one chosen number, so that the same data and seed give the same model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from feature_store.errors import BadInputError
from flows.training.dataset import Floats

_LEAST_CANDLES_A_STATE = 200
_LEAST_SHARE = 0.005
_LEAST_TRANSITION = 1e-6
_LEAST_VARIANCE_SHARE = 1e-3
MOST_ROUNDS = 200
_FIRST_ROUNDS = 12
_LEAST_GAIN = 1e-6
_FIRST_STAY, _FIRST_VARIANCE = 0.97, 0.5
_LOG_2PI = float(np.log(2 * np.pi))


@dataclass(frozen=True, slots=True, eq=False)
class FittedStates:
    """
    K states over D numbers, and how they were found.

    `share` [K] is the part of candles in each state. `log_likelihood` is of one candle, on average; `gains` is what
    it was before each round of the start that was kept, and never falls. `converged` says whether it stopped gaining
    rather than ran out of rounds.
    """

    start: Floats
    transitions: Floats
    means: Floats
    variances: Floats
    share: Floats
    log_likelihood: float
    gains: tuple[float, ...]
    converged: bool


def fit_states(
    stretches: Floats,
    *,
    states: int,
    seed: int,
    starts: int = 4,
    ordered_by: int = 0,
    least_stay: float = 1.0,
    expected: Floats | None = None,
    overlap: int = 1,
    rounds: int = MOST_ROUNDS,
) -> FittedStates:
    """
    Return the states that explain stretches of candles best.

    Args:
        stretches: What was observed [S, L, D]: S stretches of L candles without a gap, D numbers of each.
        states: How many states to look for.
        seed: Of everything that is drawn.
        starts: How many first guesses are tried; the first is drawn from nothing, the others from the seed.
        expected: Means [K, D] that the first guess begins with; without them it is equal parts of the candles.
        ordered_by: The number by whose mean the states are ordered, the smallest first.
        least_stay: The least mean stay in a state, in candles.
        overlap: How many candles share what is observed of one.
        rounds: The most rounds of the start that is kept.

    Raises:
        BadInputError: There are too few candles, a number that is not finite or never changes, or every start lost a
            state: there are fewer than that in the data.
    """
    _check(stretches, states, ordered_by)
    centre, spread = stretches.mean(axis=(0, 1)), stretches.std(axis=(0, 1))
    # Time first, so that a step of the recursion reads one piece of memory.
    scaled = np.ascontiguousarray(np.swapaxes((stretches - centre) / spread, 0, 1))
    drawn = np.random.default_rng(seed)
    first = _parts(scaled, states, ordered_by) if expected is None else _around((expected - centre) / spread)
    rows = scaled.reshape(-1, scaled.shape[-1])
    others = [_around(rows[drawn.choice(len(rows), states, replace=False)]) for _ in range(starts - 1)]
    guesses = [first, *others]
    terms = _Terms(1 - 1 / least_stay if states > 1 else 1.0, overlap)
    tried = [_improved(one, scaled, min(_FIRST_ROUNDS, rounds), terms) for one in guesses]
    kept = [one for one in tried if one.share.min() >= _LEAST_SHARE]
    if not kept:
        raise BadInputError(f"No start kept all of {states} states apart; look for fewer, or load more days")
    found = _improved(max(kept, key=lambda one: one.gains[-1]), scaled, rounds, terms)
    if found.share.min() < _LEAST_SHARE:
        raise BadInputError(f"A state of {states} has next to no candles; look for fewer, or load more days")
    order = np.argsort(found.means[:, ordered_by], kind="stable")
    variances = found.variances[order] * spread**2
    # A density is one of the numbers as they came, not as they were scaled.
    units = float(np.log(spread).sum()) / overlap
    return FittedStates(
        start=found.start[order],
        transitions=found.transitions[np.ix_(order, order)],
        means=found.means[order] * spread + centre,
        variances=variances,
        share=found.share[order],
        log_likelihood=found.gains[-1] - units,
        gains=tuple(one - units for one in found.gains),
        converged=found.converged,
    )


class _Terms(NamedTuple):
    stay: float
    overlap: int


def _check(stretches: Floats, states: int, ordered_by: int) -> None:
    if stretches.ndim != 3 or not 0 <= ordered_by < stretches.shape[-1] or states < 1:
        raise BadInputError(f"States are fitted on stretches [S, L, D], were given shape {stretches.shape}")
    stretched, length, _ = stretches.shape
    needed = states * _LEAST_CANDLES_A_STATE
    if stretched * length < needed or length < 2:
        raise BadInputError(
            f"{states} states need {needed} candles in stretches without a gap, were {stretched * length}; "
            "load more days"
        )
    if not np.isfinite(stretches).all():
        raise BadInputError("States are fitted on finite numbers alone; leave candles out whose numbers are missing")
    spread = stretches.std(axis=(0, 1))
    # What is left of a constant by rounding is no spread.
    if (spread <= 1e-12 * np.maximum(np.abs(stretches).max(axis=(0, 1)), 1e-300)).any():
        raise BadInputError("A number never changes: there is nothing to learn from constant prices")


def _parts(scaled: Floats, states: int, ordered_by: int) -> FittedStates:
    """Return a first guess of equal parts of the candles by one number."""
    rows = scaled.reshape(-1, scaled.shape[-1])
    parts = np.array_split(rows[np.argsort(rows[:, ordered_by], kind="stable")], states)
    return _around(np.stack([part.mean(axis=0) for part in parts]))


def _around(means: Floats) -> FittedStates:
    """Return a first guess of states around those means, which last."""
    states = len(means)
    transitions = np.full((states, states), (1 - _FIRST_STAY) / max(states - 1, 1))
    np.fill_diagonal(transitions, _FIRST_STAY if states > 1 else 1.0)
    even, variances = np.full(states, 1 / states), np.full_like(means, _FIRST_VARIANCE)
    return FittedStates(even, transitions, means, variances, even, -np.inf, (), converged=False)


def _improved(first: FittedStates, scaled: Floats, rounds: int, terms: _Terms) -> FittedStates:
    """Return the states after so many rounds more, or fewer where nothing is gained any longer."""
    found, gains, converged = first, list(first.gains), False
    for _ in range(rounds):
        found = _round(found, scaled, terms)
        gains.append(found.log_likelihood)
        converged = len(gains) > 1 and gains[-1] - gains[-2] < _LEAST_GAIN
        if converged:
            break
    return FittedStates(
        found.start, found.transitions, found.means, found.variances, found.share, gains[-1], tuple(gains), converged
    )


def _round(now: FittedStates, scaled: Floats, terms: _Terms) -> FittedStates:
    """Return the states after one expectation and one maximisation; the likelihood is that of the states before."""
    length, stretched, _ = scaled.shape
    logs = _log_densities(now, scaled) / terms.overlap
    largest = logs.max(axis=2, keepdims=True)
    densities = np.exp(logs - largest)
    forward, scales = _forward(now, densities)
    after, pairs = _backward(now, densities, forward, scales)

    mass = after.sum(axis=(0, 1))
    safe = np.maximum(mass, 1e-12)
    means = np.einsum("tsk,tsd->kd", after, scaled) / safe[:, None]
    squares = np.einsum("tsk,tsd->kd", after, np.square(scaled)) / safe[:, None]
    transitions = _lasting(pairs, terms.stay)
    start = np.maximum(after[0].mean(axis=0), _LEAST_TRANSITION)
    return FittedStates(
        start / start.sum(),
        transitions,
        means,
        # Scaled numbers have variance 1: a state narrower than this share of it has met one value that repeats.
        np.maximum(squares - np.square(means), _LEAST_VARIANCE_SHARE),
        mass / mass.sum(),
        float((np.log(scales).sum() + largest.sum()) / (length * stretched)),
        (),
        converged=False,
    )


def _lasting(pairs: Floats, stay: float) -> Floats:
    """Return the likeliest transitions [K, K] of expected ones, where none is 0 and each state is kept with `stay`."""
    found = np.maximum(pairs / np.maximum(pairs.sum(axis=1, keepdims=True), 1e-12), _LEAST_TRANSITION)
    found /= found.sum(axis=1, keepdims=True)
    kept = np.maximum(found.diagonal(), min(stay, 1 - _LEAST_TRANSITION)) if len(found) > 1 else np.ones(1)
    elsewhere = found.copy()
    np.fill_diagonal(elsewhere, 0.0)
    left = elsewhere.sum(axis=1)
    shared = np.divide(1 - kept, left, out=np.zeros_like(left), where=left > 0)
    return np.asarray(elsewhere * shared[:, None] + np.diag(kept))


def _log_densities(now: FittedStates, scaled: Floats) -> Floats:
    apart = scaled[:, :, None, :] - now.means
    constants = np.log(now.variances).sum(axis=1) + scaled.shape[-1] * _LOG_2PI
    return np.asarray(-0.5 * ((np.square(apart) / now.variances).sum(axis=3) + constants))


def _forward(now: FittedStates, densities: Floats) -> tuple[Floats, Floats]:
    """Return beliefs [L, S, K] that sum to 1, and what they were divided by [L, S]."""
    length, stretched, _ = densities.shape
    forward, scales = np.empty_like(densities), np.empty((length, stretched))
    before = np.broadcast_to(now.start, densities.shape[1:])
    for place in range(length):
        belief = (before if place == 0 else before @ now.transitions) * densities[place]
        scales[place] = belief.sum(axis=1)
        forward[place] = before = belief / scales[place][:, None]
    return forward, scales


def _backward(now: FittedStates, densities: Floats, forward: Floats, scales: Floats) -> tuple[Floats, Floats]:
    """Return the probability of each state given the whole stretch [L, S, K], and expected transitions [K, K]."""
    after, pairs = forward.copy(), np.zeros_like(now.transitions)
    behind = np.ones(densities.shape[1:])
    for place in range(len(densities) - 1, 0, -1):
        coming = densities[place] * behind / scales[place][:, None]
        pairs += forward[place - 1].T @ coming
        behind = coming @ now.transitions.T
        after[place - 1] *= behind
    return after, pairs * now.transitions
