"""How often signals that lean to no side are called biased, and how soon those that begin to."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from statistics import median

import numpy as np
from scipy.stats import binom

from inference.domain.bias import CANDLES_KEPT, BiasRules
from inference.domain.signal import Direction
from inference.supervision.signal_bias import SignalCandle, signal_bias

RULES = BiasRules()
"""By default: more than 70 % of one side over 20 candles."""
STATED = 2 * float(binom.sf(int(RULES.window * RULES.share), RULES.window, 0.5))
"""Rate of one look: both tails of fair coins that all fall alike. Symbols that move apart lean less; 4.1 %."""
CANDLES = 60
CHANGED_AFTER = 60
WITHIN = 60
A_DAY = 288
CONFIDENCE = 0.95
LEAST_FOUND = 0.9
_SYMBOLS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """How often a signal is long, how often all symbols say the same (0 to 1), and how often prices rise."""

    long: float = 0.5
    together: float = 1.0
    rises: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Lean:
    """Signals of so many candles, and what they become after `CHANGED_AFTER` of them, if anything."""

    name: str
    before: Signals
    after: Signals | None = None
    candles: int = CANDLES


UNCHANGED = (
    Lean(name="coins that all fall alike", before=Signals()),
    Lean(name="coins that fall alike in every other candle", before=Signals(together=0.5)),
    Lean(name="a coin for each symbol", before=Signals(together=0.0)),
)
SHOWN = Lean(
    name="right in a market that rises in 65 % of candles", before=Signals(long=0.65, rises=0.65), candles=A_DAY
)
"""Told, not held: the limit moves with the market, but less than half as far, so that who follows it is called out."""
WATCHED = Lean(name="coins that all fall alike, looked at for a day", before=Signals(), candles=A_DAY)
CHANGED = (
    Lean(name="long in 90 % of candles", before=Signals(), after=Signals(long=0.9)),
    Lean(name="short in 90 %, half of them alike", before=Signals(together=0.5), after=Signals(long=0.1, together=0.5)),
)
LESSER = (Lean(name="long in 80 % of candles", before=Signals(), after=Signals(long=0.8)),)


def is_called(lean: Lean, seed: int) -> bool:
    """Whether the watch calls a bias at one look, at the end of the candles."""
    *_, last = _candles(lean, lean.candles, seed)
    found = signal_bias(last, RULES)
    return found is not None and found.is_bias


def is_ever_called(lean: Lean, seed: int) -> bool:
    """Whether it calls one at any candle."""
    looks = (signal_bias(seen, RULES) for seen in _candles(lean, lean.candles, seed))
    return any(found is not None and found.is_bias for found in looks)


def delay(lean: Lean, seed: int) -> int | None:
    """
    Return after how many candles a change was called by its side, 0 where none was.

    None where that side was called at the change already, by chance.
    """
    assert lean.after is not None
    side = Direction.LONG if lean.after.long > 0.5 else Direction.SHORT
    for place, seen in enumerate(_candles(lean, CHANGED_AFTER + WITHIN, seed), start=1):
        found = signal_bias(seen, RULES) if place >= CHANGED_AFTER else None
        if found is not None and found.is_bias and found.side is side:
            return place - CHANGED_AFTER if place > CHANGED_AFTER else None
    return 0


def _candles(lean: Lean, count: int, seed: int) -> Iterator[Sequence[SignalCandle]]:
    rng, kept = np.random.default_rng(seed), deque[SignalCandle](maxlen=CANDLES_KEPT)
    for place in range(count):
        signals = lean.before if lean.after is None or place < CHANGED_AFTER else lean.after
        longs, rose = _alike(rng, signals.long, signals.together), _alike(rng, signals.rises, signals.together)
        kept.append(
            SignalCandle(
                close_ms=place,
                model_version="1",
                regime="ranging_calm",
                longs=longs,
                shorts=_SYMBOLS - longs,
                rose=rose,
                fell=_SYMBOLS - rose,
            )
        )
        yield kept


def _alike(rng: np.random.Generator, share: float, together: float) -> int:
    if rng.random() < together:
        return _SYMBOLS if rng.random() < share else 0
    return int((rng.random(_SYMBOLS) < share).sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class BiasRuns:
    """What came of the runs: how often a bias was called, by the name of the lean, and delays of changes."""

    called: Mapping[str, Sequence[bool]]
    delays: Mapping[str, Sequence[int | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class BiasFound:
    """How the watch did, in words, and whether it is as stated."""

    figure: str
    bar: str
    holds: bool
    details: tuple[str, ...]


def lived(pool: Executor, runs: int) -> BiasRuns:
    """Live each lean so often, each time with a seed of its own."""

    def seeds(number: int) -> range:
        return range(100_000 * (200 + number), 100_000 * (200 + number) + runs)

    looks = [(one, is_called) for one in (*UNCHANGED, SHOWN)] + [(WATCHED, is_ever_called)]
    return BiasRuns(
        called={
            lean.name: list(pool.map(partial(look, lean), seeds(number), chunksize=16))
            for number, (lean, look) in enumerate(looks)
        },
        delays={
            lean.name: list(pool.map(partial(delay, lean), seeds(50 + number), chunksize=16))
            for number, lean in enumerate((*CHANGED, *LESSER))
        },
    )


def judged(runs: BiasRuns) -> BiasFound:
    """Hold what leans to no side against the stated rate of a look, and the changes against the least share found."""
    times = len(runs.called[UNCHANGED[0].name])
    counts = {lean.name: sum(runs.called[lean.name]) for lean in UNCHANGED}
    bound = int(binom.ppf(CONFIDENCE ** (1 / len(UNCHANGED)), times, STATED))
    details = [
        f"biased at a look: {count} of {times} ({name}), stated {STATED:.1%}, at most {bound}"
        for name, count in counts.items()
    ]
    details.append(f"biased at a look: {sum(runs.called[SHOWN.name])} of {times} ({SHOWN.name}); told, not held")
    ever = sum(runs.called[WATCHED.name])
    details.append(f"biased at some candle of a day: {ever} of {times} ({WATCHED.name}); told, not held")
    missed, medians = [], []
    for name, delays in runs.delays.items():
        eligible = [one for one in delays if one is not None]
        found = [one for one in eligible if one > 0]
        share = len(found) / len(eligible) if eligible else 0.0
        if name in {lean.name for lean in CHANGED}:
            medians += [median(found)] if found else []
            missed += [name] if share < LEAST_FOUND else []
        after = f"in the median after {median(found):.0f} candles" if found else "never"
        details.append(f"{name}: called in {share:.1%} within {WITHIN} candles, {after}")
    return BiasFound(
        figure=(
            f"of {times} looks at signals without a side at most {max(counts.values())} called biased, "
            f"{len(CHANGED) - len(missed)} of {len(CHANGED)} leans found, in the median after "
            f"{min(medians, default=0):.0f} to {max(medians, default=0):.0f} candles"
        ),
        bar=f"<= {bound}, what the stated {STATED:.1%} of a look allow; each lean found in >= {LEAST_FOUND:.0%}",
        holds=max(counts.values()) <= bound and not missed,
        details=tuple(details),
    )
