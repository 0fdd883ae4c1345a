"""Candles that were scored in shadow, made up, for tests of what becomes of them."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import numpy as np

from flows.replay.maturing import Seen
from flows.training.live_evidence import Market
from inference.domain.shadow import Role, ShadowOpinion, ShadowScored

STEP_MS = 300_000
# Midnight of 2026-01-05, UTC.
START_MS = 1_767_571_200_000
SYMBOLS = ("AAA/USDT:USDT", "BBB/USDT:USDT", "CCC/USDT:USDT")
SANDBOX = Market(venue="sandbox", mode="sandbox")
REAL = Market(venue="binanceusdm", mode="live")
CHAMPION, CHALLENGER, OTHER = "a" * 64, "b" * 64, "c" * 64


def opinion(
    role: Role, digest: str, expected: list[float | None], *, horizon: int = 3, threshold: float = 0.5
) -> ShadowOpinion:
    """Return an opinion that is as sure as it expects much."""
    return ShadowOpinion(
        role=role,
        version={CHAMPION: "1", CHALLENGER: "2"}.get(digest, "3"),
        digest=digest,
        horizon=horizon,
        threshold=threshold,
        expected_return=tuple(None if one is None else float(one) for one in expected),
        probability_up=tuple(None if one is None else 0.5 + 0.4 * float(np.tanh(200 * one)) for one in expected),
    )


def scored(
    number: int,
    middle: list[float | None],
    opinions: tuple[ShadowOpinion, ...],
    *,
    half_spread: float = 0.01,
    fee: str = "0.0005",
    symbols: tuple[str, ...] = SYMBOLS,
) -> Seen:
    """Return the candle `number` with the prices that were shown when it had closed."""
    close_ms = START_MS + number * STEP_MS
    event = ShadowScored(
        candle_close_ms=close_ms,
        timeframe_ms=STEP_MS,
        venue="sandbox",
        mode="sandbox",
        place="inside",
        taker_fee=Decimal(fee),
        slippage=Decimal(0),
        symbols=symbols,
        bid=tuple(None if one is None else Decimal(str(round(float(one) - half_spread, 6))) for one in middle),
        ask=tuple(None if one is None else Decimal(str(round(float(one) + half_spread, 6))) for one in middle),
        opinions=opinions,
    )
    return Seen(event, close_ms + 120)


def moved(seen: list[Seen], to: Market) -> list[Seen]:
    """Return the same candles as if they had been scored in another market."""
    return [Seen(replace(one.event, venue=to.venue, mode=to.mode), one.recorded_ms) for one in seen]


def market(candles: int, *, seed: int = 1, edge: float = 0.0, champion: bool = True, first: int = 0) -> list[Seen]:
    """
    Return candles of three symbols scored by a challenger, who foresees a share `edge` of each move, and a champion.

    Returns:
        One event for each candle, with noise for the champion's opinion.
    """
    rng = np.random.default_rng(seed)
    moves = rng.normal(0, 0.002, (candles + 3, 3))
    prices = 100 * np.exp(np.cumsum(moves, axis=0))
    ahead = np.log(prices[3:] / prices[:-3])
    noise = rng.normal(0, 0.003, (2, candles, 3))
    seen = []
    for at in range(candles):
        said = [opinion(Role.CHALLENGER, CHALLENGER, list(edge * ahead[at] + (1 - edge) * noise[0, at]))]
        if champion:
            said.insert(0, opinion(Role.CHAMPION, CHAMPION, list(noise[1, at])))
        seen.append(scored(first + at, list(prices[at]), tuple(said)))
    return seen
