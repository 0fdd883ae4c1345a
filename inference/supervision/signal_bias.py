"""What counts as a one-sided model: signals counted by candle, held against what the market did in such regimes."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from inference.decision import is_confident
from inference.domain.bias import BiasRules, SignalBias
from inference.domain.decision import Candidate
from inference.domain.policy import Policy
from inference.domain.signal import Direction

_ENOUGH_OF_A_REGIME = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalCandle:
    """
    One candle as the watch remembers it.

    `longs` and `shorts` count the signals that passed the threshold; `rose` and `fell` the prices of all scored symbols
    since each was scored before. `regime` is the one that most symbols were in.
    """

    close_ms: int
    model_version: str
    regime: str
    longs: int
    shorts: int
    rose: int
    fell: int


def signal_candle(
    candidates: Sequence[Candidate], policy: Policy, *, close_ms: int, earlier: Mapping[str, float]
) -> SignalCandle | None:
    """Return what one candle adds to the watch, or None where nothing was scored; `earlier` are closes by symbol."""
    if not candidates:
        return None
    sides = Counter(one.signal.direction for one in candidates if is_confident(one, policy))
    moves = [one.close - earlier[one.signal.symbol] for one in candidates if one.signal.symbol in earlier]
    return SignalCandle(
        close_ms=close_ms,
        model_version=candidates[0].signal.model_version,
        regime=_most_common(one.signal.regime for one in candidates),
        longs=sides[Direction.LONG],
        shorts=sides[Direction.SHORT],
        rose=sum(move > 0 for move in moves),
        fell=sum(move < 0 for move in moves),
    )


def signal_bias(candles: Sequence[SignalCandle], rules: BiasRules) -> SignalBias | None:
    """
    Return how far the newest signals lean, or None where the newest candle's model has given none.

    Candles come oldest first. Only those of the newest one's model count, and of these only those with a signal. The
    limit lies at `rules.share` where prices rise as often as they fall, and moves towards 1 as far as the regimes of
    those candles are one-sided themselves: whoever is long in a rising market is not biased yet.
    """
    if not candles:
        return None
    version = candles[-1].model_version
    counted = [one for one in candles if one.model_version == version and one.longs + one.shorts][-rules.window :]
    if not counted:
        return None
    rising = _rising_by_regime(candles)
    long_share = _mean([one.longs / (one.longs + one.shorts) for one in counted])
    long_usual = _mean([rising.get(one.regime, 0.5) for one in counted])
    leans_long = long_share >= 0.5
    usual = long_usual if leans_long else 1 - long_usual
    return SignalBias(
        side=Direction.LONG if leans_long else Direction.SHORT,
        share=long_share if leans_long else 1 - long_share,
        usual=usual,
        limit=min(1.0, rules.share + (1 - rules.share) * max(0.0, 2 * usual - 1)),
        candles=len(counted),
        window=rules.window,
    )


def _rising_by_regime(candles: Iterable[SignalCandle]) -> dict[str, float]:
    shares: defaultdict[str, list[float]] = defaultdict(list)
    for one in candles:
        if one.rose + one.fell:
            shares[one.regime].append(one.rose / (one.rose + one.fell))
    return {regime: _mean(found) for regime, found in shares.items() if len(found) >= _ENOUGH_OF_A_REGIME}


def _mean(values: Sequence[float]) -> float:
    # Exact sums: a share that is the limit must not pass it by a rounding error.
    return math.fsum(values) / len(values)


def _most_common(names: Iterable[str]) -> str:
    counted = Counter(names)
    # Of equals the first by name, so that the order of symbols changes nothing.
    return min(counted, key=lambda name: (-counted[name], name))
