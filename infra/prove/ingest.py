"""`kill -9` of an ingest at random moments: afterwards the lake holds what the venue has, and no page came twice."""

from __future__ import annotations

import random
import signal
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feature_store.absences import Span
from feature_store.candle import CandleBlock, Series, Timeframe
from feature_store.clock import monotonic
from feature_store.lake import CandleLake
from feature_store.sources.ingest import REVERIFIED
from flows.settings import FlowSettings
from infra.prove.proof import Proof, Size
from infra.prove.recording_proxy import AskedPage, RecordingProxy
from infra.prove.servers import Servers
from infra.prove.stage import QTCTL, ROOT, ProofError, Stage, get

_TIMEFRAME = Timeframe.M5
_STEP = _TIMEFRAME.milliseconds
_DAY_MS = 86_400_000
_RUN_TAKES_AT_MOST_S = 1500.0
# A page ends with the candle that is still open; the next one begins with it.
_OPEN_CANDLE = 1
BAR = "complete to the bit, counts as expected, no page asked for again but those under way at a kill"


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is ingested, and how often the process is killed."""

    symbols: int
    days: int
    kills: int


SCALES = {Size.FULL: Scale(100, 90, 20), Size.CI: Scale(10, 30, 5)}


@dataclass(frozen=True, slots=True)
class Refetched:
    """Pages that came again: `interrupted` ones were under way when the process was killed, each counted once."""

    interrupted: int
    needless: tuple[AskedPage, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """One series at the end: what the lake holds against what the venue has."""

    symbol: str
    expected: int
    found: int
    differing: int
    doubled: int

    @property
    def is_whole(self) -> bool:
        """Whether the lake holds each candle of the venue, once, to the bit."""
        return self.found == self.expected and not self.differing and not self.doubled


def prove(size: Size) -> Proof:
    """Kill `qtctl ingest` at seeded random moments, let the last run finish, and compare."""
    scale = SCALES[size]
    with Stage("ingest") as stage, Servers(stage) as servers:
        venue = servers.sandbox(symbols=scale.symbols, history_days=scale.days + 2, speed=60)
        stage.environment |= {"PREFECT_API_URL": servers.prefect(), "QT_TIMEFRAME": str(_TIMEFRAME)}
        started = monotonic()
        with RecordingProxy(venue) as proxy:
            stage.environment["QT_VENUE_URL"] = proxy.url
            kills = [_one_life(stage, proxy, scale, rng) for rng in _seeds(scale.kills)]
            _run_to_the_end(stage, proxy, scale)
            pages, until_ms = tuple(proxy.pages), _TIMEFRAME.floor_ms(proxy.began_ms[proxy.run])
        took = monotonic() - started
        held = _compare(stage.home / "lake", venue, Span(until_ms - scale.days * _DAY_MS + _STEP, until_ms))
    return judged(scale, kills=sum(kills), pages=pages, held=held, took_s=took)


def judged(scale: Scale, *, kills: int, pages: Sequence[AskedPage], held: Sequence[Held], took_s: float = 0.0) -> Proof:
    """Hold what was found against the bar."""
    again = refetched(pages, verified_again=REVERIFIED)
    at_most = kills * FlowSettings.of().concurrency
    whole = sum(one.is_whole for one in held)
    figure = (
        f"{kills} kills; {whole} of {scale.symbols} series whole, {sum(one.found for one in held)} candles of "
        f"{sum(one.expected for one in held)} expected, {sum(one.differing for one in held)} differ, "
        f"{sum(one.doubled for one in held)} doubled; {len(pages)} pages, {again.interrupted} asked for again after a "
        f"kill (at most {at_most}), {len(again.needless)} needlessly"
    )
    holds = (
        kills == scale.kills
        and whole == len(held) == scale.symbols
        and not again.needless
        and again.interrupted <= at_most
    )
    wrong = [f"{one.symbol}: {one.found} of {one.expected}" for one in held if not one.is_whole]
    details = [f"{scale.symbols} symbols, {scale.days} days of 5m, {took_s:.0f} s with all kills"]
    details += [f"not whole: {text}" for text in wrong[:5]]
    details += [f"asked for again needlessly: {page}" for page in again.needless[:5]]
    return Proof(name="ingest", figure=figure, bar=BAR, holds=holds, details=tuple(details))


def refetched(pages: Sequence[AskedPage], *, verified_again: int = 0) -> Refetched:
    """
    Return which pages came twice.

    A page may come again where it overlaps nothing but pages that were the last of their runs: those had perhaps not
    been stored when the process was killed. One that an earlier run had gone on from had been. `verified_again`
    candles of overlap are not counted.
    """
    seen: dict[str, list[AskedPage]] = {}
    interrupted: set[AskedPage] = set()
    needless: list[AskedPage] = []
    for page in pages:
        before = seen.setdefault(page.symbol, [])
        overlapping = [one for one in before if _overlap(one, page) > verified_again + _OPEN_CANDLE]
        if overlapping:
            was_under_way = all(one.run < page.run and _was_last(one, before) for one in overlapping)
            interrupted |= set(overlapping) if was_under_way else set()
            if not was_under_way:
                needless.append(page)
        before.append(page)
    return Refetched(len(interrupted), tuple(needless))


def _overlap(one: AskedPage, other: AskedPage) -> int:
    if one.first_ms is None or one.last_ms is None or other.first_ms is None or other.last_ms is None:
        return 0
    return max(0, (min(one.last_ms, other.last_ms) - max(one.first_ms, other.first_ms)) // _STEP + 1)


def _was_last(page: AskedPage, asked: Sequence[AskedPage]) -> bool:
    """Tell whether nothing was asked for after a page in its run."""
    return [one for one in asked if one.run == page.run][-1] is page


def _seeds(kills: int) -> list[random.Random]:
    return [random.Random(f"ingest {kill}") for kill in range(kills)]


def _command(scale: Scale) -> list[str]:
    return [str(QTCTL), "ingest", "--days", str(scale.days), "--json"]


def _one_life(stage: Stage, proxy: RecordingProxy, scale: Scale, rng: random.Random) -> bool:
    """Start an ingest, kill it at a random moment after a random page, and tell whether the kill ended it."""
    proxy.run += 1
    pages = scale.symbols * (scale.days * _DAY_MS // _STEP // 1_000 + 1)
    countdown = rng.randint(1, max(2, int(0.9 * pages / scale.kills)))
    moment, delay_s = rng.choice(["asked", "answered"]), rng.uniform(0, 0.04)
    reached = threading.Event()

    def on_page(when: str) -> None:
        nonlocal countdown
        countdown -= when == moment
        if countdown <= 0:
            reached.set()

    proxy.on_page = on_page
    with _log(stage).open("ab") as log:
        process = subprocess.Popen(_command(scale), cwd=ROOT, env=stage.environment, stdout=log, stderr=log)
        started = monotonic()
        while not reached.wait(0.2) and process.poll() is None:
            if monotonic() - started > _RUN_TAKES_AT_MOST_S:
                break
        time.sleep(delay_s)
        process.kill()
        status = process.wait()
    proxy.on_page = lambda _: None
    proxy.settle()
    return status == -signal.SIGKILL


def _run_to_the_end(stage: Stage, proxy: RecordingProxy, scale: Scale) -> None:
    proxy.run += 1
    with _log(stage).open("ab") as log:
        done = subprocess.run(
            _command(scale),
            cwd=ROOT,
            env=stage.environment,
            stdout=log,
            stderr=log,
            timeout=_RUN_TAKES_AT_MOST_S,
            check=False,
        )
    if done.returncode != 0:
        raise ProofError(f"qtctl ingest ended with {done.returncode}: {_log(stage).read_text()[-2000:]}")


def _log(stage: Stage) -> Path:
    return stage.home / "ingest.log"


def _compare(root: Path, venue: str, wanted: Span) -> list[Held]:
    lake = CandleLake(root)
    names = {
        f"{one['baseAsset']}/{one['quoteAsset']}:{one['marginAsset']}": one["symbol"]
        for one in get(f"{venue}/fapi/v1/exchangeInfo")["symbols"]
    }
    return [_held(lake, venue, symbol, name, wanted) for symbol, name in sorted(names.items())]


def _held(lake: CandleLake, venue: str, symbol: str, name: str, wanted: Span) -> Held:
    rows = lake.read_rows(Series("sandbox", symbol, _TIMEFRAME))
    stored = rows.latest().block
    # Earlier runs began earlier: what they stored beside what the last one wants must be the venue's too.
    first = min(wanted.start_ms, stored.first_open_time_ms or wanted.start_ms)
    there = _candles_of_venue(venue, name, Span(first, wanted.end_ms))
    return Held(
        symbol,
        expected=(wanted.end_ms - wanted.start_ms) // _STEP,
        found=len(stored.since(wanted.start_ms)),
        differing=0 if there.equals(stored) else _differing(there, stored),
        doubled=len(rows) - len(stored),
    )


def _differing(there: CandleBlock, stored: CandleBlock) -> int:
    ours = {candle.open_time_ms: candle for candle in stored.candles()}
    return sum(ours.pop(candle.open_time_ms, None) != candle for candle in there.candles()) + len(ours)


def _candles_of_venue(venue: str, name: str, asked: Span) -> CandleBlock:
    """Ask the venue itself, with nothing of ours or of ccxt between."""
    rows: list[list[Any]] = []
    start_ms = asked.start_ms
    while start_ms < asked.end_ms:
        query = {
            "symbol": name,
            "interval": str(_TIMEFRAME),
            "startTime": start_ms,
            "limit": 1500,
            "endTime": asked.end_ms - 1,
        }
        page = get(f"{venue}/fapi/v1/klines?{urllib.parse.urlencode(query)}", timeout=60)
        if not page:
            break
        rows += page
        start_ms = int(page[-1][0]) + _STEP
    return CandleBlock.from_rows([[float(value) for value in row[:6]] for row in rows])
