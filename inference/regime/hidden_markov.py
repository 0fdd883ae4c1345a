"""
A hidden Markov model as plain arrays, and its forward filter: what is likely now, from the past alone.

The filter is the forward recursion of Rabiner (A tutorial on hidden Markov models, Proceedings of the IEEE 77, 1989,
section III.A, with the scaling of V.A): belief before a candle is the belief after the last one times the transition
matrix, belief after it is that times the density of what was seen, made to sum to 1. There is no backward pass and no
most likely path: both would change what was said of a candle once later ones are known.

Numbers of a candle may be of several candles, as a return over twelve is; candles beside each other then share most of
what is observed. Each counts for its part: log densities are divided by the overlap (a weighted composite likelihood:
Varin, Reid and Firth, Statistica Sinica 21, 2011), in training as here.

Densities are taken as logarithms and the largest of each row is taken off before they become numbers, so that nothing
underflows; transitions and starts that are 0 stay 0. All arithmetic is by rows and in a fixed order, so that a series'
numbers are the same to the bit alone or among others, one candle at a time or many at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import numpy as np

from inference.regime.arrays import check_distribution, check_numbers, check_table, require
from inference.regime.states import Floats

MOST_STATES = 8
MOST_OBSERVED = 8
_LARGEST = 1e9
_LOG_2PI = math.log(2 * math.pi)


class HiddenMarkov(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """
    A hidden Markov model of K states with diagonal normal densities over D numbers, as training exports it.

    `start` [K] is the belief before the first candle, `transitions` [K, K] the probability of each state (column) after
    each state (row), `means` and `variances` [K, D] the densities. `lowest` and `highest` [D] bound what is observed,
    to what training saw: a bad tick is the most extreme thing there was and not a certainty.

    `overlap` is how many candles share what is observed of one, by which log densities are divided. How well a market
    is known is the mean of these under what was predicted for each candle, exponentially weighted over `memory`
    candles. From `rare` on nothing is doubted; at `unseen` and below nothing is believed. Both are quantiles of what
    training saw. `warm_up` is how many candles in a row must have been seen before anything is said.
    """

    start: tuple[float, ...]
    transitions: tuple[tuple[float, ...], ...]
    means: tuple[tuple[float, ...], ...]
    variances: tuple[tuple[float, ...], ...]
    lowest: tuple[float, ...]
    highest: tuple[float, ...]
    overlap: int
    unseen: float
    rare: float
    memory: int
    warm_up: int

    @property
    def states(self) -> int:
        """How many hidden states there are."""
        return len(self.start)

    @property
    def observed(self) -> int:
        """How many numbers are observed of a candle."""
        return len(self.lowest)

    def __post_init__(self) -> None:
        """Refuse what no training can have exported: shapes that differ, rows that are no distributions, no number."""
        states, observed = len(self.start), len(self.lowest)
        require(1 <= states <= MOST_STATES, f"Hidden states must be 1 to {MOST_STATES}, were {states}")
        require(1 <= observed <= MOST_OBSERVED, f"Observed numbers must be 1 to {MOST_OBSERVED}, were {observed}")
        check_distribution("Start probabilities", self.start, count=states)
        check_table("transitions", self.transitions, shape=(states, states))
        for row in self.transitions:
            check_distribution("Transitions of a state", row, count=states)
        check_table("means", self.means, shape=(states, observed))
        check_table("variances", self.variances, shape=(states, observed))
        for row in (*self.means, *self.variances):
            require(all(abs(one) <= _LARGEST for one in row), f"Means and variances must be within {_LARGEST:g}")
        for row in self.variances:
            require(all(one >= 1 / _LARGEST for one in row), f"Variances must be at least {1 / _LARGEST:g}")
        check_numbers("Lowest observations", self.lowest, count=observed, above=-_LARGEST)
        check_numbers("Highest observations", self.highest, count=observed)
        for low, high in zip(self.lowest, self.highest, strict=True):
            require(low < high < _LARGEST, f"Observations must have room between {low} and {high}")
        require(1 <= self.overlap <= 1000, f"Overlap must be 1 to 1000 candles, was {self.overlap}")
        check_numbers("Log densities of what is rare and unseen", (self.unseen, self.rare), count=2)
        require(self.unseen < self.rare, f"What is unseen ({self.unseen}) must lie below what is rare ({self.rare})")
        require(1 <= self.memory <= 10_000, f"Memory must be 1 to 10000 candles, was {self.memory}")
        require(1 <= self.warm_up <= 10_000, f"Warm-up must be 1 to 10000 candles, was {self.warm_up}")


class Prepared(NamedTuple):
    """A model's numbers as arrays, made once."""

    model: HiddenMarkov
    start: Floats
    transitions: Floats
    means: Floats
    precisions: Floats
    constants: Floats
    lowest: Floats
    highest: Floats


class Belief(NamedTuple):
    """
    What a filter remembers of n series.

    `probability` [n, K] is the belief after the newest candle, `surprise` [n] the weighted mean log density, `seen` [n]
    how many candles in a row were seen up to the newest, counted as far as the warm-up.
    """

    probability: Floats
    surprise: Floats
    seen: Floats


def prepare(model: HiddenMarkov) -> Prepared:
    """Return a model's numbers as arrays, for any number of steps."""
    variances = np.array(model.variances)
    return Prepared(
        model,
        np.array(model.start),
        np.array(model.transitions),
        np.array(model.means),
        1 / variances,
        -0.5 * (model.observed * _LOG_2PI + np.log(variances).sum(axis=1)),
        np.array(model.lowest),
        np.array(model.highest),
    )


def first_belief(prepared: Prepared, count: int) -> Belief:
    """Return what is believed of `count` series before their first candle."""
    # The filter moves by the transitions before it looks, so the first candle's prior is put where they lead to it.
    return Belief(np.tile(prepared.start, (count, 1)), np.zeros(count), np.full(count, -1.0))


def advance(prepared: Prepared, before: Belief, observed: Floats) -> Belief:
    """
    Return the belief after one more candle of each series.

    A row of `observed` [n, D] with a number that is not finite was not seen: belief moves on by the transitions alone
    and the series has to warm up again. Numbers outside what training saw count as its most extreme.
    """
    sound = np.asarray(np.isfinite(observed).all(axis=1))
    fresh = before.seen < 0
    predicted = np.where(fresh[:, None], before.probability, _moved(before.probability, prepared.transitions))
    within = np.clip(np.where(sound[:, None], observed, 0.0), prepared.lowest, prepared.highest)
    logs = log_densities(prepared, within)
    largest = logs.max(axis=1)
    weighted = predicted * np.exp(logs - largest[:, None])
    total = _summed(weighted)
    # Where every state that was possible has no density left, nothing was learned: the belief stays what it was.
    usable = sound & (total > 0)
    divisor = np.where(usable, total, 1.0)
    probability = np.where(usable[:, None], weighted / divisor[:, None], predicted)
    found = np.where(usable, largest + np.log(divisor), before.surprise)
    seen = np.where(usable, np.minimum(np.maximum(before.seen, 0.0) + 1, prepared.model.warm_up), 0.0)
    # A plain mean of what was seen until the memory is full, so that the first candle has no more to say than others.
    share = np.maximum(1 / np.maximum(seen, 1.0), 1 / prepared.model.memory)
    surprise = np.where(usable, before.surprise + share * (found - before.surprise), 0.0)
    return Belief(probability, surprise, seen)


def walk(prepared: Prepared, before: Belief, observed: Floats) -> Iterator[Belief]:
    """Yield the belief after each candle of `observed` [T, n, D], oldest first: `advance`, candle by candle."""
    belief = before
    for row in observed:
        belief = advance(prepared, belief, row)
        yield belief


def doubt(prepared: Prepared, belief: Belief) -> Floats:
    """Return how far each series is in no market that training saw, from 0 to 1 [n]; 1 while it is not warm."""
    model = prepared.model
    far = np.clip((model.rare - belief.surprise) / (model.rare - model.unseen), 0.0, 1.0)
    return np.where(belief.seen >= model.warm_up, far, 1.0)


def log_densities(prepared: Prepared, observed: Floats) -> Floats:
    """Return what each row of `observed` [n, D] counts for each state, [n, K]: its log density by the overlap."""
    logs = np.tile(prepared.constants, (len(observed), 1))
    for place in range(prepared.model.observed):
        apart = observed[:, place, None] - prepared.means[None, :, place]
        logs -= 0.5 * prepared.precisions[None, :, place] * apart * apart
    return logs / prepared.model.overlap


def _moved(belief: Floats, transitions: Floats) -> Floats:
    """Return belief times transitions, state by state: a library's product may round otherwise for other n."""
    moved = belief[:, 0, None] * transitions[None, 0]
    for state in range(1, len(transitions)):
        moved = moved + belief[:, state, None] * transitions[None, state]
    return np.asarray(moved, np.float64)


def _summed(values: Floats) -> Floats:
    total = values[:, 0].copy()
    for state in range(1, values.shape[1]):
        total += values[:, state]
    return total
