"""How often the production drift check speaks where nothing changed, and how often where something did."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context

from scipy.stats import beta, binom

from flows.drifting.check import FALSE_ALARM_RATES, DriftReport, check
from flows.observing import observed_in
from infra.prove.drift_markets import Change, play
from infra.prove.proof import Proof, Size

RUNS = {Size.FULL: 500, Size.CI: 100}
PLANTED_RUNS = {Size.FULL: 60, Size.CI: 10}
EDGE = 0.10
"""Strength of the market in which false alarms are counted: the champion's IC is about 0.2 and it earns its costs."""
DAYS_SINCE = 10
HOURS = 24
LEAST_POWER = 0.8
# So many false alarms are borne with a chance of 5 %, at most, where the rate is exactly what is stated.
CONFIDENCE = 0.95

UNCHANGED = Change(name="unchanged")
PLANTED = (
    (Change(name="volatility x 3 for a day", volatility=3.0), "inputs"),
    (Change(name="predictions a tenth as large for a day", timidity=0.1), "predictions"),
    (Change(name="edge reversed for 10 days", edge=-1.0), "performance"),
)
"""Changes that a check must find, and which part of it."""
SHOWN = (
    (Change(name="volatility x 2 for a day", volatility=2.0), "inputs"),
    (Change(name="volatility x 1.5 for a day", volatility=1.5), "inputs"),
    (Change(name="predictions a third as large for a day", timidity=1 / 3), "predictions"),
    (Change(name="edge gone for 10 days", edge=0.0), "performance"),
)
"""Lesser changes, at full size only; how often they are found is told."""


@dataclass(frozen=True, slots=True)
class Found:
    """Which parts of one check spoke."""

    performance: bool
    inputs: bool
    predictions: bool
    outcomes: bool

    @property
    def any(self) -> bool:
        """Whether any did."""
        return self.performance or self.inputs or self.predictions or self.outcomes


def look(change: Change, seed: int) -> Found:
    """Play one market and take it through the production check, ten days after the champion was made."""
    played = play(seed, EDGE, DAYS_SINCE, change)
    seen = observed_in(
        played.dataset, played.windows, played.said,
        end_ms=played.end_ms, hours=HOURS, threshold=played.rule.threshold, cost=played.config.round_trip_cost,
    )  # fmt: skip
    report: DriftReport = check(seen.groups, seen.performance, version="1", end_ms=seen.end_ms, hours=HOURS)
    unjudged = [group.name for group in report.groups if group.state != "judged"]
    if unjudged or report.performance.state != "judged":
        raise AssertionError(f"Not judged: {unjudged}, performance {report.performance.note}")
    spoke = {group.name: group.found for group in report.groups}
    return Found(report.performance.found, spoke["inputs"], spoke["predictions"], spoke["outcomes"])


def prove(size: Size) -> Proof:
    """Count alarms over unchanged markets and over planted changes, each market with a seed of its own."""
    runs, planted = RUNS[size], PLANTED_RUNS[size]
    with ProcessPoolExecutor(os.cpu_count() or 1, mp_context=get_context("spawn")) as pool:

        def every(change: Change, seeds: Sequence[int]) -> list[Found]:
            return list(pool.map(partial(look, change), seeds, chunksize=2))

        quiet = every(UNCHANGED, range(runs))
        powers = {}
        for number, (change, part) in enumerate(PLANTED + (SHOWN if size is Size.FULL else ()), start=1):
            found = every(change, range(10_000 * number, 10_000 * number + planted))
            powers[change.name] = (part, sum(getattr(one, part) for one in found))
    return judged(quiet, powers, planted)


def judged(quiet: Sequence[Found], powers: dict[str, tuple[str, int]], planted: int) -> Proof:
    """Hold the counts against the stated rates, and the planted changes against the least power."""
    rates = {"any part": sum(FALSE_ALARM_RATES.values()), **FALSE_ALARM_RATES}
    counts = {name: _count(quiet, name) for name in rates}
    runs = len(quiet)
    bounds = {name: int(binom.ppf(CONFIDENCE, runs, rate)) for name, rate in rates.items()}
    within = all(counts[name] <= bounds[name] for name in rates)
    required = {change.name for change, _ in PLANTED}
    missed = [name for name, (_, count) in powers.items() if name in required and count < LEAST_POWER * planted]
    alarms = counts["any part"]
    return Proof(
        name="drift-alarms",
        figure=(
            f"{alarms} false alarms in {runs} unchanged markets ({alarms / runs:.1%}, at most "
            f"{_upper(alarms, runs):.1%} at 95 %), {len(PLANTED) - len(missed)} of {len(PLANTED)} planted changes found"
        ),
        bar=(
            f"<= {bounds['any part']} of {runs}, as 5 % of trials at the stated {rates['any part']:.0%} exceed; "
            f"each change in >= {LEAST_POWER:.0%} of {planted}"
        ),
        holds=within and not missed,
        details=(
            *(
                f"{name}: {counts[name]} of {runs}, stated {rate:.2%}, at most {bounds[name]}, upper limit "
                f"{_upper(counts[name], runs):.2%}"
                for name, rate in rates.items()
            ),
            *(f"{name}: found in {count} of {planted} by {part}" for name, (part, count) in powers.items()),
            (
                f"each market: 3 symbols, 30 days of training, {DAYS_SINCE} days since; volatility remembers half an"
                " hour and a day; performance is looked at after every block of six hours"
            ),
        ),
    )


def _count(quiet: Sequence[Found], name: str) -> int:
    of: Callable[[Found], bool] = (lambda one: one.any) if name == "any part" else (lambda one: getattr(one, name))
    return sum(of(one) for one in quiet)


def _upper(count: int, runs: int) -> float:
    """Return the one-sided 95 % upper limit of a rate (Clopper and Pearson)."""
    return 1.0 if count >= runs else float(beta.ppf(CONFIDENCE, count + 1, runs - count))
