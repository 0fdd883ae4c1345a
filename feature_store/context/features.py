"""The context features of assets at any moments, of what had arrived by then and nothing else."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from feature_store.context.definition import CONTEXT_NAMES, DAY_MS, HOUR_MS, STALE_MS
from feature_store.context.observation import MARKET, SENTIMENT, TEXTS_POLLED

if TYPE_CHECKING:
    import numpy.typing as npt

    from feature_store.context.store import Told

    Floats = npt.NDArray[np.float64]
    Times = npt.NDArray[np.int64]

_BITCOIN = "BTC"
_NEVER = np.iinfo(np.int64).max
_LONG_AGO = np.iinfo(np.int64).min // 2
_UNITS = 10_000
"""Scores have four decimals: summed as whole numbers they are exact, however many come and go."""


class ContextView:
    """
    Everything that was told, ready to be asked for the features of any asset.

    A text belongs to a window by when it happened, as far as that is claimed and has passed, and is known from its
    arrival on, until a later revision of it arrives. What was published before it was first asked for is no news.
    """

    def __init__(self, told: Told) -> None:
        self._told = told
        subjects, subject = np.unique(told.subject, return_inverse=True)
        metrics, metric = np.unique(told.metric, return_inverse=True)
        code = metric.astype(np.int64) * max(len(subjects), 1) + subject
        order = np.argsort(code, kind="stable")
        begins = np.flatnonzero(np.diff(code[order], prepend=-1))
        self._rows = {
            (str(metrics[code[rows[0]] // len(subjects)]), str(subjects[code[rows[0]] % len(subjects)])): rows
            for rows in np.split(order, begins[1:])
            if len(rows)
        }

    def features(self, asset: str, decided_ms: Times) -> Floats:
        """Return a row of CONTEXT_NAMES for each moment of decision, NaN where nothing was known."""
        hour, hour_count = self._mean_of_texts(asset, decided_ms, HOUR_MS)
        day, day_count = self._mean_of_texts(asset, decided_ms, DAY_MS)
        market, _ = self._mean_of_texts(MARKET, decided_ms, DAY_MS)
        _, asked_ms = self._last(TEXTS_POLLED, MARKET, decided_ms)
        in_hour = np.where(decided_ms - asked_ms < HOUR_MS, hour_count, np.nan)
        in_day = np.where(decided_ms - asked_ms < DAY_MS, day_count, np.nan)
        capitalisation = self._fresh("market_cap_usd", asset, decided_ms)
        whole = self._fresh("total_market_cap_usd", MARKET, decided_ms)
        whole_before = self._fresh("total_market_cap_usd", MARKET, decided_ms - DAY_MS)
        columns = {
            "sentiment_1h": hour,
            "sentiment_24h": day,
            "sentiment_change": hour - day,
            "market_sentiment_24h": market,
            "mentions_1h": np.log1p(in_hour),
            "mentions_24h": np.log1p(in_day),
            "attention": np.log1p(in_hour) - np.log1p(in_day / 24),
            "market_cap_rank": np.log(self._fresh("market_cap_rank", asset, decided_ms)),
            "turnover": np.log(self._fresh("volume_usd", asset, decided_ms) / capitalisation),
            "market_share": np.log(capitalisation / whole),
            "bitcoin_dominance": self._fresh("dominance_percent", _BITCOIN, decided_ms) / 100,
            "market_change_24h": np.log(whole / whole_before),
        }
        return np.column_stack([columns[name] for name in CONTEXT_NAMES])

    @cached_property
    def _replaced_ms(self) -> Times:
        """Until when each row is the newest that is known of its item."""
        told = self._told
        keys = list(zip(told.source, told.item, told.revision.tolist(), strict=True))
        arrived = dict(zip(keys, told.available_at_ms.tolist(), strict=True))
        return np.array([arrived.get((source, item, number + 1), _NEVER) for source, item, number in keys], np.int64)

    def _rows_of(self, metric: str, subject: str) -> npt.NDArray[np.intp]:
        return self._rows.get((metric, subject), np.empty(0, np.intp))

    def _mean_of_texts(self, subject: str, decided_ms: Times, window_ms: int) -> tuple[Floats, Floats]:
        """Return the mean score and the number of the texts of a window, as they were known at each moment."""
        rows = self._rows_of(SENTIMENT, subject)
        begin = self._told.available_at_ms[rows]
        end = np.minimum(self._told.event_ms[rows] + window_ms, self._replaced_ms[rows])
        counts = end > begin
        units = np.rint(self._told.value[rows][counts] * _UNITS).astype(np.int64)
        times = np.concatenate([begin[counts], end[counts]])
        order = np.argsort(times, kind="stable")
        at = np.searchsorted(times[order], decided_ms, side="right")

        def running(values: Times) -> Floats:
            steps = np.concatenate([values, -values])[order]
            return np.concatenate([[0], np.cumsum(steps)])[at].astype(np.float64)

        number = running(np.ones(len(units), np.int64))
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = running(units) / _UNITS / number
        return np.where(number > 0, mean, np.nan), number

    def _fresh(self, metric: str, subject: str, moments_ms: Times) -> Floats:
        """Return the newest figure that had arrived at each moment, NaN where it is stale or there was none."""
        value, arrived_ms = self._last(metric, subject, moments_ms)
        return np.where(moments_ms - arrived_ms < STALE_MS, value, np.nan)

    def _last(self, metric: str, subject: str, moments_ms: Times) -> tuple[Floats, Times]:
        rows = self._rows_of(metric, subject)
        arrived = self._told.available_at_ms[rows]
        at = np.searchsorted(arrived, moments_ms, side="right")
        return (
            np.concatenate([[np.nan], self._told.value[rows]])[at],
            np.concatenate([np.array([_LONG_AGO]), arrived])[at],
        )
