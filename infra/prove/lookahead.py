"""Look-ahead planted into real trainings: each kind is caught by name, and honest markets raise no alarm."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from msgspec.structs import replace

from feature_store.candle import CandleBlock, Series, Timeframe
from feature_store.clock import utc_now
from feature_store.lake import CandleLake
from feature_store.universe.selection import WEEK_MS
from flows.auditing import audited_frames
from flows.settings import FlowSettings
from flows.sizes import training_config
from flows.training.pipeline import train_candidate
from flows.training.tripwire_bounds import TripwireBounds
from flows.training.tripwires import Asked, TripwireError
from flows.universes import build_universes
from infra.prove.gate_markets import synthetic_candles
from infra.prove.planting import KINDS, PLANTED, Planted
from infra.prove.proof import Proof, Size

if TYPE_CHECKING:
    from flows.training.config import TrainingConfig

_STEP = Timeframe.M5.milliseconds
_RULES = '[universe]\nmode = "all"\nmax_symbols = 2\n[universe.filters]\nmin_age_days = 1\n'
_VIEW = {"QT_INCLUDE_TIMEFRAMES": "1h", "QT_INCLUDE_INPUTS": "rsi,log_return_1"}


@dataclass(frozen=True, slots=True)
class Extent:
    """Of how many markets each plant is tried on, how many honest ones are trained, and with which members."""

    seeds: tuple[int, ...]
    honest: tuple[tuple[int, float], ...]
    symbols: int
    days: int
    members: tuple[str, ...]


_EDGES = (0.0, 0.3, 0.45, 0.6)
EXTENTS = {
    Size.FULL: Extent(
        (1, 2, 3, 4, 5), tuple((seed, edge) for edge in _EDGES for seed in range(11, 21)), 4, 30,
        ("xgboost", "lightgbm", "nhits", "patchtst"),
    ),
    Size.CI: Extent((1,), ((11, 0.0), (12, 0.45)), 4, 24, ("xgboost", "lightgbm")),
}  # fmt: skip


def prove(size: Size) -> Proof:
    """Train honestly and with each plant; CI has time for one market each, two honest ones, and trees alone."""
    extent, missed, caught, details = EXTENTS[size], [], Counter[str](), []
    for seed in extent.seeds:
        with _home(extent, seed, 0.45) as home:
            for planted in PLANTED:
                wires = _wires(home, extent, planted)
                hit = bool(set(wires) & set(planted.wires))
                caught[planted.kind] += hit
                if not hit:
                    missed.append(f"{planted.kind} ({planted.what}, seed {seed}): {wires or 'nothing'}")
                if seed == extent.seeds[0]:
                    details.append(f"{planted.kind}: {planted.what}: {', '.join(wires) or 'NOT CAUGHT'}")
    alarms = []
    for seed, edge in extent.honest:
        with _home(extent, seed, edge) as home:
            for follows in (False, True):
                wires = _wires(home, extent, None, follows=follows)
                if wires:
                    alarms.append(f"alarm at edge {edge}, seed {seed}: {', '.join(wires)}")
    tried = Counter(one.kind for one in PLANTED)
    whole = [kind for kind in KINDS if caught[kind] == tried[kind] * len(extent.seeds)]
    honest = 2 * len(extent.honest)
    return Proof(
        name="lookahead",
        figure=(
            f"{len(whole)} of {len(KINDS)} kinds caught by name ({sum(caught.values())} of "
            f"{len(PLANTED) * len(extent.seeds)} plants), {len(alarms)} alarms in {honest} honest trainings"
        ),
        bar=f"{len(KINDS)} of {len(KINDS)} kinds, every plant, no alarm",
        holds=not missed and not alarms,
        details=(*details, *missed, *alarms, f"members: {', '.join(extent.members)}; {extent.days} days"),
    )


@contextmanager
def _home(extent: Extent, seed: int, edge: float) -> Iterator[Path]:
    """Yield a home whose lake holds candles that came late and were corrected, of symbols whose volumes change."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "rules.toml").write_text(_RULES)
        lake, rng = CandleLake(home / "lake"), np.random.default_rng(seed)
        for number, (symbol, block) in enumerate(synthetic_candles(extent.symbols, extent.days, edge, seed).items()):
            series = Series("sandbox", symbol, Timeframe.M5)
            told = _traded_by_turns(block, number, extent.symbols)
            # Each symbol's candles come a few seconds after the one's before it.
            lake.append(series, told, available_at_ms=told.open_time_ms + _STEP + 1_000 + 4_000 * number)
            for place in rng.integers(len(told) // 4, len(told) - 50, 6).tolist():
                wrong = told[place : place + 2]
                moved = CandleBlock(wrong.open_time_ms, wrong.values * np.array([1.004] * 4 + [1.0]))
                arrived_ms = int(wrong.open_time_ms[0]) + 20 * _STEP
                lake.append(series, moved, available_at_ms=arrived_ms)
        yield home


def _traded_by_turns(block: CandleBlock, number: int, symbols: int) -> CandleBlock:
    """Return candles whose volume is large in every so many weeks, so that universes change."""
    values = block.values.copy()
    week = (block.open_time_ms // WEEK_MS) % symbols
    values[:, 4] *= np.where(week == number, 2_000.0, 100.0)
    return CandleBlock(block.open_time_ms, values)


def _wires(home: Path, extent: Extent, planted: Planted | None, *, follows: bool = False) -> tuple[str, ...]:
    """Train as flow `train` does, with something planted or not; return the names of the wires that stopped it."""
    follows = follows or (planted is not None and planted.follows_universe)
    with _environment(first_symbol(home)):
        settings = FlowSettings.of(
            home=home, venue="sandbox", timeframe="5m", days=extent.days - 1, size="tiny",
            symbols="universe" if follows else "all", universe=home / "rules.toml",
        )  # fmt: skip
        config = _config(settings, extent)
        with nullcontext() if planted is None else planted.plant():
            try:
                if follows:
                    shutil.rmtree(settings.universes, ignore_errors=True)
                    build_universes(settings)
                frames = audited_frames(settings, config)
                with tempfile.TemporaryDirectory() as out:
                    asked = Asked(days=settings.days, series=0 if follows else extent.symbols)
                    train_candidate(frames, config, Path(out), _unseen, asked)
            except TripwireError as error:
                return error.wires
    return ()


def _config(settings: FlowSettings, extent: Extent) -> TrainingConfig:
    """Return the size that tries the machinery, with the bounds of production but for how many outcomes there are."""
    config = training_config(settings, utc_now())
    return replace(config, members=extent.members, compared=(), tripwires=TripwireBounds(independent_outcomes=10.0))


def first_symbol(home: Path) -> str:
    """Return a symbol of the lake that all others read too: the last one to arrive."""
    return CandleLake(home / "lake").series()[-1].symbol


@contextmanager
def _environment(symbol: str) -> Iterator[None]:
    wanted = {**_VIEW, "QT_INCLUDE_SYMBOLS": symbol}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _unseen(_step: str, _share: float) -> None:
    """Progress that nobody watches."""
