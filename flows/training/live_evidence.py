"""What counts of a candidate's shadow on live candles: its bundle, the market it would trade, the champion of today."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from flows.training.verdict import Finding, GateCheck

_PAIRED_DAYS = "live_shadow/paired_days"
# The gates that say whether there were enough live candles, and those on what was earned on them.
_TIME = ("live_shadow_days", "live_independent_outcomes")
_EARNED = ("live_net_over_flat_low", "live_net_over_champion_low")


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """Where something is traded, and how real the money is there: QT_VENUE and QT_MODE."""

    venue: str
    mode: str

    def __str__(self) -> str:
        """Name it by its settings."""
        return f"{self.venue} in QT_MODE={self.mode}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveShadow:
    """
    The newest figures of a shadow on live candles, with all that they are about.

    Candles of the sandbox are live, too, and cost nothing: figures say nothing of another market than their own.
    `champion_digest` is the bundle that it was paired with, None where there was none.
    """

    bundle_digest: str
    market: Market
    metrics: Mapping[str, float]
    champion_digest: str | None = None

    def counted(self, bundle_digest: str, market: Market, champion_digest: str | None) -> dict[str, float]:
        """Return the figures that count for a bundle in a market; beside another champion none of the paired ones."""
        if (self.bundle_digest, self.market) != (bundle_digest, market):
            return {}
        if champion_digest is None or self.champion_digest == champion_digest:
            return dict(self.metrics)
        return {name: one for name, one in self.metrics.items() if "champion" not in name and name != _PAIRED_DAYS}


def facts_of(
    live: LiveShadow | None, bundle_digest: str, trained_on: str | None, market: Market, rival: str | None
) -> list[tuple[str, Finding, str]]:
    """Return, with a name and a reason each, what must be true before figures of a live shadow say anything."""
    facts = [
        ("trained_venue", *_same_venue(trained_on, market.venue)),
        ("live_market", *_same_market(live, bundle_digest, market)),
    ]
    return facts if rival is None else [*facts, ("live_champion", *_same_champion(live, rival))]


def not_too_early(checks: list[GateCheck]) -> list[GateCheck]:
    """Hold back, instead of refusing, for what was earned on the first few live candles: that is luck, good or bad."""
    if all(check.passed for check in checks if check.name in _TIME):
        return checks
    early = "There are too few live candles yet to judge by."
    return [
        msgspec.structs.replace(check, finding=Finding.MISSING, reason=f"{early} {check.reason}")
        if check.name in _EARNED and check.finding is Finding.FAILED and check.bound is not None
        else check
        for check in checks
    ]


def _same_market(live: LiveShadow | None, bundle_digest: str, market: Market) -> tuple[Finding, str]:
    if live is None:
        return Finding.MISSING, f"It has no live shadow on {market} yet: qtctl shadow --live logs what has matured."
    if live.bundle_digest != bundle_digest:
        return Finding.MISSING, f"The live shadow is of bundle {live.bundle_digest[:12]}, not of this one."
    if live.market != market:
        return Finding.MISSING, f"The live shadow is of {live.market}; what counts is one of {market}."
    return Finding.HELD, f"The live shadow is of this bundle on {market}."


def _same_champion(live: LiveShadow | None, champion_digest: str) -> tuple[Finding, str]:
    if live is not None and live.champion_digest == champion_digest:
        return Finding.HELD, "The live shadow was paired with the champion of today."
    return Finding.MISSING, "The live shadow was not paired with the champion of today; wait for candles beside it."


def _same_venue(trained_on: str | None, venue: str) -> tuple[Finding, str]:
    if trained_on == venue:
        return Finding.HELD, f"It was trained on {venue}, where it would trade."
    if not trained_on:
        return Finding.MISSING, f"Its tag `venue` does not say where it was trained; {venue} is what would be traded."
    return Finding.FAILED, f"It was trained on {trained_on}, and QT_VENUE={venue} is what would be traded."
