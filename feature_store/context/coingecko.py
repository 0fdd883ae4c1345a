"""Market data from CoinGecko: capitalisation, rank, volume, and how much of the market an asset is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from feature_store.context.observation import MARKET, MARKETS_POLLED, Figure, Observation
from feature_store.context.source import Fetched
from feature_store.context.web import Web

PAGE = 250
"""Coins asked for at once: the most that is given."""
_DAY_MS = 86_400_000
_MOST_IDS = 100


class _Coin(msgspec.Struct, frozen=True):
    id: str
    symbol: str
    current_price: float | None = None
    market_cap: float | None = None
    market_cap_rank: float | None = None
    total_volume: float | None = None
    last_updated: str | None = None


class _Whole(msgspec.Struct, frozen=True):
    total_market_cap: dict[str, float | None]
    total_volume: dict[str, float | None]
    market_cap_percentage: dict[str, float | None]
    updated_at: int | None = None


class _Global(msgspec.Struct, frozen=True):
    data: _Whole


@dataclass(frozen=True, slots=True)
class CoinGecko:
    """
    The largest coins, the market as a whole, and single coins beside them.

    `coins` says under which ticker single coins are wanted that are not among the largest: their ids are CoinGecko's.
    """

    web: Web
    largest: int = PAGE
    coins: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """There is one."""
        return "coingecko"

    @property
    def topic(self) -> str:
        """What it tells of."""
        return MARKETS_POLLED

    async def fetch(self, now_ms: int, _memory: Mapping[str, str]) -> Fetched:
        """
        Ask for everything; what has not changed is not stored again.

        Raises:
            SourceError: One of the questions was not answered in the form that it should.
        """
        coins = await self._largest(now_ms)
        found = list(self._observed(coins, now_ms))
        missing = [one for one in self.coins if one not in {coin.id for coin in coins}]
        for begin in range(0, len(missing), _MOST_IDS):
            found += await self._single(missing[begin : begin + _MOST_IDS], now_ms)
        answer = await self.web.get("/global", now_ms=now_ms)
        found.append(_of_the_market(self.web.document(answer.body, _Global).data, now_ms))
        return Fetched(tuple(found))

    async def _largest(self, now_ms: int) -> list[_Coin]:
        coins: list[_Coin] = []
        for page in range(1, -(-self.largest // PAGE) + 1):
            params = {"vs_currency": "usd", "order": "market_cap_desc", "per_page": str(PAGE), "page": str(page)}
            answer = await self.web.get("/coins/markets", now_ms=now_ms, params=params)
            found = self.web.document(answer.body, list[_Coin])
            coins += found
            if len(found) < PAGE:
                break
        return coins[: self.largest]

    def _observed(self, coins: list[_Coin], now_ms: int) -> Iterator[Observation]:
        told: set[str] = set()
        for coin in coins:
            ticker = self.coins.get(coin.id, coin.symbol).upper()
            claimed_ms = _moment_ms(coin.last_updated, now_ms)
            figures = _figures(
                ticker,
                price_usd=coin.current_price,
                market_cap_usd=coin.market_cap,
                market_cap_rank=coin.market_cap_rank,
                volume_usd=coin.total_volume,
            )
            # Of coins that share a ticker the largest comes first; a figure of yesterday is no news.
            if ticker and ticker not in told and figures and claimed_ms > now_ms - _DAY_MS:
                told.add(ticker)
                yield Observation(f"{coin.id}@{claimed_ms}", claimed_ms, figures, claimed_ms)

    async def _single(self, ids: list[str], now_ms: int) -> list[Observation]:
        params = {
            "ids": ",".join(ids),
            "vs_currencies": "usd",
            "include_market_cap": "true",
            "include_24hr_vol": "true",
            "include_last_updated_at": "true",
        }
        answer = await self.web.get("/simple/price", now_ms=now_ms, params=params)
        found = []
        for one, row in self.web.document(answer.body, dict[str, dict[str, float | None]]).items():
            seconds = row.get("last_updated_at")
            claimed_ms = now_ms if seconds is None else int(seconds) * 1000
            figures = _figures(
                self.coins.get(one, "").upper(),
                price_usd=row.get("usd"),
                market_cap_usd=row.get("usd_market_cap"),
                volume_usd=row.get("usd_24h_vol"),
            )
            if one in self.coins and figures and claimed_ms > now_ms - _DAY_MS:
                found.append(Observation(f"{one}@{claimed_ms}", claimed_ms, figures, claimed_ms))
        return found


def _of_the_market(whole: _Whole, now_ms: int) -> Observation:
    claimed_ms = now_ms if whole.updated_at is None else whole.updated_at * 1000
    figures = _figures(
        MARKET,
        total_market_cap_usd=whole.total_market_cap.get("usd"),
        total_volume_usd=whole.total_volume.get("usd"),
    )
    shares = [
        figure
        for ticker, percent in whole.market_cap_percentage.items()
        for figure in _figures(ticker.upper(), dominance_percent=percent)
        if ticker and figure.value <= 100
    ]
    return Observation(f"global@{claimed_ms}", claimed_ms, (*figures, *shares), claimed_ms)


def _figures(subject: str, **values: float | None) -> tuple[Figure, ...]:
    """Return the figures that are there; none of these can be negative, and a zero means that it is not known."""
    return tuple(
        Figure(subject, metric, float(value))
        for metric, value in values.items()
        if value is not None and math.isfinite(value) and value > 0
    )


def _moment_ms(text: str | None, default: int) -> int:
    try:
        moment = datetime.fromisoformat(text or "")
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        return default
