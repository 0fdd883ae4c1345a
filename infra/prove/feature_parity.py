"""Live equals batch: the worker's features of candles that arrive as badly as they can, against one pass over all."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_store.candle import CandleBlock, Series, Timeframe
from feature_store.errors import BadInputError
from feature_store.features.definition import FEATURE_NAMES, INDEX, WINDOW
from feature_store.features.engine import FEATURE_COUNT, READY_AFTER, FeatureEngine, model_inputs
from feature_store.features.live import UNBROKEN, LiveFeatures
from feature_store.features.state import load_state, state_path
from feature_store.lake import CandleLake
from feature_store.store import FeatureStore
from inference.bootstrap.catch_up import Snapshots, bring, history, restore, save_states
from inference.feed.batches import LOOK_EVERY, BatchAssembler
from inference.feed.history import closed_candles
from inference.feed.rebuilding import Behind
from inference.feed.recent import REMEMBERED, RecentCandles
from infra.prove.arrivals import Arrivals
from infra.prove.comparing import different_cells, same
from infra.prove.markets import synthetic_series
from infra.prove.proof import Proof, Size
from infra.prove.recorded_markets import recorded_series, what_was_used

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

_WORLD = 8  # Symbols that one worker follows at once.
PATIENCE = REMEMBERED - LOOK_EVERY
"""For so many candles a worker notices in time what comes late or is corrected, whenever it looks or is restarted."""
_KILLED = 0.3  # Of the restarts: it goes on from what an earlier stop left.
# How often a candle came again is counted in the state, and is no property of the candles.
_LIKE: dict[str, Any] = {
    "tail": ...,
    "recursion": ...,
    "counters": np.array([0, 1, 2, 3, 4, 5, 7]),
    "input_ring": ...,
    "return_ring": ...,
}


@dataclass(frozen=True, slots=True)
class Extent:
    """How many candles arrive, and how often something goes wrong with a series."""

    synthetic: int
    synthetic_series: int
    recorded: int | None
    per_file: int | None
    mishaps: int
    restart: float
    stored: int


EXTENTS = {
    Size.FULL: Extent(10_000, 48, None, None, mishaps=4, restart=0.001, stored=8),
    Size.CI: Extent(1_500, 24, 2_000, 2, mishaps=3, restart=0.02, stored=2),
}


@dataclass(slots=True)
class Tally:
    """What was compared and what differed."""

    values: int = 0
    events: Counter[str] = field(default_factory=Counter)
    differing: Counter[str] = field(default_factory=Counter)

    def compare(self, names: Sequence[str], live: npt.NDArray[np.floating], batch: npt.NDArray[np.floating]) -> None:
        """Compare two tables column by column; `names` are of their last axis."""
        self.values += live.size
        if live.shape != batch.shape:
            self.differing[f"rows of {names[0]} and others"] += 1
            return
        different = different_cells(live, batch)
        for column in np.flatnonzero(different.reshape(-1, len(names)).any(axis=0)).tolist():
            self.differing[names[column]] += int(different[..., column].sum())


def prove(size: Size) -> Proof:
    """Play worlds of several symbols to their end and compare every row, window and state with batch."""
    extent, tally, real = EXTENTS[size], Tally(), 0
    synthetic = synthetic_series(extent.synthetic, extent.synthetic_series)
    with tempfile.TemporaryDirectory() as folder:
        for number, world in enumerate(worlds(chain(synthetic, recorded_series(extent.recorded, extent.per_file)))):
            real += sum(series.venue != "synthetic" for series in world)
            World(world, extent.mishaps, extent.restart, number, Path(folder) / str(number), tally).play()
        stored = dict(list(synthetic_series(1_500, extent.stored)))
        through_the_lake(stored, extent.mishaps, Path(folder) / "lake", tally)
    told = ", ".join(f"{count:,} {event}" for event, count in sorted(tally.events.items()))
    wrong = ", ".join(f"{name} {count}" for name, count in tally.differing.most_common(5)) or "0 differ"
    return Proof(
        name="feature-parity",
        figure=f"{tally.values:,} values of {FEATURE_COUNT} features and the windows of models: {wrong}",
        bar="live = batch to the bit",
        holds=not tally.differing,
        details=(
            f"on {what_was_used(real)}",
            f"deliveries: {told}",
            f"through the worker's feed, rebuilding and start; nothing is late or wrong beyond {PATIENCE} candles",
        ),
    )


def worlds(found: Iterable[tuple[Series, CandleBlock]]) -> Iterator[dict[Series, CandleBlock]]:
    """Group series of one timeframe into what one worker follows."""
    waiting: dict[Timeframe, dict[Series, CandleBlock]] = {}
    for series, block in found:
        group = waiting.setdefault(series.timeframe, {})
        group[series] = block
        if len(group) == _WORLD:
            yield waiting.pop(series.timeframe)
    yield from waiting.values()


class _Venue:
    """What the venue tells of the past, as the worker reads it: everything that is known by now."""

    def __init__(self, arrivals: Mapping[str, Arrivals]) -> None:
        self._arrivals = arrivals

    async def fetch_ohlcv(
        self, symbol: str, _timeframe: str, since: int | None, limit: int | None, /
    ) -> list[list[Any]]:
        block = self._arrivals[symbol].known.since(since or 0)[: limit or 0]
        return [
            [time, *values] for time, values in zip(block.open_time_ms.tolist(), block.values.tolist(), strict=True)
        ]


class World:
    """
    One worker and the candles that reach it, series by series in a random order.

    It is made of the worker's own parts: closed candles come through its assembler into one call for all symbols, the
    venue is asked again for what was handed out, what has changed is rebuilt from the venue's history, and a restart
    goes through its files and its catching up.
    """

    def __init__(
        self,
        truths: Mapping[Series, CandleBlock],
        mishaps: int,
        restart: float,
        seed: int,
        folder: Path,
        tally: Tally,
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.restart, self.folder, self.tally = restart, folder, tally
        self.timeframe, self.venue_name = next((one.timeframe, one.venue) for one in truths)
        patience_ms = PATIENCE * self.timeframe.milliseconds
        self.arrivals = {one: Arrivals(block, self.rng, mishaps, patience_ms) for one, block in truths.items()}
        self.venue = _Venue({series.symbol: one for series, one in self.arrivals.items()})
        self.live = self._worker()
        points = {series.symbol: int(block.open_time_ms[0]) - 1 for series, block in truths.items()}
        self.feed = BatchAssembler(last_open_ms=points, timeframe=self.timeframe)
        self.rows: dict[Series, list[tuple[npt.NDArray[np.int64], Floats]]] = {one: [] for one in truths}
        # The candle at which the features of a series begin, now and in the newest file of states.
        self.begun: dict[Series, int] = {}
        self.saved: dict[Series, int] = {}

    def play(self) -> None:
        """Let everything arrive, then compare with one pass over the truth."""
        open_ = list(self.arrivals)
        while open_:
            series = open_[int(self.rng.integers(len(open_)))]
            self._take(series)
            if self.rng.random() < self.restart:
                self._restart()
            if self.arrivals[series].is_over:
                open_.remove(series)
        for series, arrivals in self.arrivals.items():
            self._settle(series, arrivals.known)
            self._compare_windows(series, arrivals.truth)
            self._compare_state(series, arrivals.truth)

    def _take(self, series: Series) -> None:
        arrivals = self.arrivals[series]
        delivery = arrivals.next()
        self.tally.events[delivery.kind] += 1
        if delivery.known_before is not None:
            self._look_again(series, delivery.known_before)
        # What is newer than all before is as good as in time.
        self.feed.fill(series.symbol, delivery.block.candles())
        batch = self.feed.take(self._now_ms(series))
        if batch.changed:
            self.tally.differing["candles told again"] += 1
        for symbol, computed in self.live.advance_all(batch.blocks).items():
            if symbol != series.symbol or isinstance(computed, BadInputError):
                self.tally.differing["candles handed out"] += 1
                continue
            self.begun.setdefault(series, int(batch.blocks[symbol].open_time_ms[0]))
            self.rows[series].append((batch.blocks[symbol].open_time_ms, computed))

    def _look_again(self, series: Series, before: CandleBlock) -> None:
        """Ask the venue once more, as a feed does beside its closes, and rebuild what has changed, as a worker does."""
        self._settle(series, before)
        symbol, last = series.symbol, self.live.last_open_time_ms(series.symbol)
        if last is None:
            return
        page = closed_candles(
            self.venue,
            symbol,
            self.timeframe,
            after_ms=last - REMEMBERED * self.timeframe.milliseconds,
            closed_by_ms=last + self.timeframe.milliseconds,
        )
        self.feed.recheck(symbol, asyncio.run(page))
        changed = self.feed.take(self._now_ms(series)).changed
        if changed:
            self.tally.events["rebuilt"] += 1
            read = history(self.live, self.venue, symbol, timeframe=self.timeframe, now_ms=self._now_ms(series))
            behind = Behind(changed, {symbol: asyncio.run(read)})
            if behind.rebuild(self.live, lambda *_: None):
                self.tally.differing["series left stale"] += 1
            self.begun[series] = int(behind.histories[symbol].open_time_ms[0])
        self._compare_windows(series, self.arrivals[series].known.until(last + 1))

    def _now_ms(self, series: Series) -> int:
        """Return a moment at which the newest known candle has closed."""
        known = self.arrivals[series].known.last_open_time_ms
        return (known or 0) + self.timeframe.milliseconds

    def _settle(self, series: Series, known: CandleBlock) -> None:
        """Compare the rows since the past last changed with one pass over what was known when they were made."""
        rows, self.rows[series] = self.rows[series], []
        if not rows:
            return
        block = known.since(self.begun[series])
        times = np.concatenate([part[0] for part in rows])
        batch = FeatureEngine(self.timeframe).advance(block)
        at = np.searchsorted(block.open_time_ms, times)
        self.tally.compare(FEATURE_NAMES, np.concatenate([part[1] for part in rows]), batch[at])

    def _compare_windows(self, series: Series, known: CandleBlock) -> None:
        latest = self.live.latest()
        place = latest.symbols.index(series.symbol)
        continuity = self.live.continuity(series.symbol)
        begun = known.since(continuity.first_open_time_ms or 0)  # A long gap begins windows afresh, too.
        features = FeatureEngine(self.timeframe).advance(begun)[-WINDOW:]
        rows = len(features)
        names = [f"input {column}" for column in range(latest.windows.shape[2])]
        self.tally.compare(names, latest.windows[place, WINDOW - rows :], model_inputs(features))
        returns = np.ascontiguousarray(features[:, INDEX["log_return_1"]])
        self.tally.compare(["window of returns"], latest.returns[place, WINDOW - rows :, None], returns[:, None])
        unbroken = _unbroken(begun, self.timeframe)
        if bool(latest.ready[place]) != (len(begun) >= READY_AFTER and unbroken >= UNBROKEN):
            self.tally.differing["ready"] += 1

    def _compare_state(self, series: Series, truth: CandleBlock) -> None:
        path = state_path(self.folder, series)
        self.live.save(path, series)
        kept = load_state(path, series)
        engine = FeatureEngine(self.timeframe)
        engine.advance(truth.since(self.begun[series]))
        for name, made in engine.state.arrays().items():
            if kept is None or not same(kept.arrays()[name][_LIKE[name]], made[_LIKE[name]]):
                self.tally.differing[f"state {name}"] += 1

    def _restart(self) -> None:
        """
        Stop and save, or die with the files of an earlier stop; then go on in another worker, as it starts.

        It follows the same symbols and others, in another order.
        """
        if self.rng.random() < _KILLED:
            self.tally.events["kills"] += 1
        else:
            self.tally.events["restarts"] += 1
            self.saved = dict(self.begun)
            save_states(
                self.live, venue=self.venue_name, folder=self.folder, timeframe=self.timeframe, recent=self.feed.recent
            )
        for series, arrivals in self.arrivals.items():
            self._settle(series, arrivals.known)
        self.live, recent = self._worker(), RecentCandles(self.timeframe)
        snapshots = Snapshots.of([self.folder], venue=self.venue_name, timeframe=self.timeframe)
        for series in self.arrivals:
            now_ms = self._now_ms(series)
            restored = restore(self.live, series, snapshots, recent, now_ms=now_ms)
            brought = asyncio.run(bring(self.live, self.venue, series, recent, restored=restored, now_ms=now_ms))
            self.tally.events["outdated states"] += bool(brought.outdated)
            if brought.restored:
                self.begun[series] = self.saved[series]
            elif len(brought.block):
                self.begun[series] = int(brought.block.open_time_ms[0])
        points = {
            series.symbol: self.live.last_open_time_ms(series.symbol) or int(one.truth.open_time_ms[0]) - 1
            for series, one in self.arrivals.items()
        }
        self.feed = BatchAssembler(last_open_ms=points, timeframe=self.timeframe, recent=recent)
        for series, arrivals in self.arrivals.items():
            self._look_again(series, arrivals.known)

    def _worker(self) -> LiveFeatures:
        others = [f"OTHER{number}/USDT:USDT" for number in range(int(self.rng.integers(0, 4)))]
        symbols = [*[series.symbol for series in self.arrivals], *others]
        return LiveFeatures([symbols[place] for place in self.rng.permutation(len(symbols))], self.timeframe)


def _unbroken(block: CandleBlock, timeframe: Timeframe) -> int:
    """Count the candles in a row at the end of a block."""
    gaps = np.flatnonzero(np.diff(block.open_time_ms) != timeframe.milliseconds)
    return len(block) - (int(gaps[-1]) + 1 if len(gaps) else 0)


def through_the_lake(truths: Mapping[Series, CandleBlock], mishaps: int, folder: Path, tally: Tally) -> None:
    """Let candles arrive in a lake, materialize now and then, and compare what is stored with one pass."""
    rng = np.random.default_rng(0)
    lake, store = CandleLake(folder / "lake"), FeatureStore(folder / "features")
    for series, truth in truths.items():
        arrivals = Arrivals(truth, rng, mishaps)
        while not arrivals.is_over:
            delivery = arrivals.next()
            lake.append(series, delivery.block)
            tally.events["into the lake"] += 1
            if rng.random() < 0.05:
                store.materialize(lake, [series])
        store.materialize(lake, [series])
        times, stored = store.read(series)
        if not np.array_equal(times, truth.open_time_ms):
            tally.differing["candles in the lake"] += 1
            continue
        tally.compare(FEATURE_NAMES, stored, FeatureEngine(series.timeframe).advance(truth))
