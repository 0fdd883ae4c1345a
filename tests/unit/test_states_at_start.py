"""A start takes over what the worker or the lake's run left, whichever is newer, and reads what is missing."""

from __future__ import annotations

import numpy as np
import pytest

from feature_store.candle import CandleBlock, Timeframe
from feature_store.features.live import LiveFeatures
from feature_store.features.state import state_path
from feature_store.features.state_files import states_path
from inference.bootstrap.catch_up import catch_up, save_states
from inference.feed.recent import RecentCandles
from tests.feature_support import BTC, ETH, STEP, market, same

SYMBOLS = (BTC.symbol, ETH.symbol)
BLOCKS = {BTC.symbol: market(400, seed=1), ETH.symbol: market(400, seed=2)}
NOW_MS = int(BLOCKS[BTC.symbol].open_time_ms[-1]) + STEP


class _Venue:
    """Answers with recorded candles, and counts them."""

    def __init__(self, blocks=None) -> None:
        self.sent = 0
        self.blocks = blocks or BLOCKS

    async def fetch_ohlcv(self, symbol, _timeframe, since, limit, /):
        block = self.blocks[symbol].since(since)[:limit]
        self.sent += len(block)
        return [[c.open_time_ms, c.open, c.high, c.low, c.close, c.volume] for c in block.candles()]


def _live(until: int) -> LiveFeatures:
    live = LiveFeatures(SYMBOLS)
    for symbol in SYMBOLS:
        live.advance(symbol, BLOCKS[symbol][:until])
    return live


async def _started(*homes) -> tuple[LiveFeatures, int, int]:
    live, venue = LiveFeatures(SYMBOLS), _Venue()
    done = await catch_up(live, venue, venue=BTC.venue, homes=homes, timeframe=Timeframe.M5, now_ms=NOW_MS)
    return live, len(done.restored), venue.sent


def _as_if_never_stopped(live: LiveFeatures) -> bool:
    ours, never = live.latest(), _live(400).latest()
    return all(same(found, expected) for found, expected in zip(ours[1:], never[1:], strict=True))


async def test_a_start_goes_on_from_the_file_of_all(tmp_path):
    """What was saved together is taken over together; newer candles are asked for, and the 64 before to compare."""
    save_states(_live(390), venue=BTC.venue, folder=tmp_path, timeframe=Timeframe.M5)

    live, from_snapshot, sent = await _started(tmp_path)

    assert (from_snapshot, sent) == (2, 2 * (64 + 10))
    assert _as_if_never_stopped(live)


async def test_the_newest_of_several_is_taken(tmp_path):
    """A state of one series that the lake's run kept counts where it is newer."""
    save_states(_live(380), venue=BTC.venue, folder=tmp_path / "own", timeframe=Timeframe.M5)
    _live(395).save(state_path(tmp_path / "lake", BTC), BTC)

    live, from_snapshot, sent = await _started(tmp_path / "own", tmp_path / "lake")

    assert (from_snapshot, sent) == (2, 64 + 5 + 64 + 20)
    assert _as_if_never_stopped(live)


async def test_a_damaged_file_costs_requests_and_nothing_else(tmp_path):
    """Damage is logged, and candles are read instead."""
    save_states(_live(390), venue=BTC.venue, folder=tmp_path, timeframe=Timeframe.M5)
    path = states_path(tmp_path, BTC.venue, "5m")
    path.write_bytes(path.read_bytes()[:-1])

    live, from_snapshot, sent = await _started(tmp_path)

    assert from_snapshot == 0
    assert sent > 20
    assert live.last_open_time_ms(BTC.symbol) == NOW_MS - STEP


def _but_for(block: CandleBlock, *places: int) -> CandleBlock:
    kept = np.delete(np.arange(len(block)), list(places))
    return CandleBlock(block.open_time_ms[kept], block.values[kept])


def _recent_of(block: CandleBlock) -> RecentCandles:
    recent = RecentCandles(Timeframe.M5)
    recent.add(BTC.symbol, block)
    return recent


@pytest.mark.parametrize("missed", [385, 350, 200])
async def test_a_state_that_lacks_what_has_become_known_is_not_gone_on_from(tmp_path, missed):
    """A candle that the worker missed and the venue has by now: the series is begun afresh, the other one is not."""
    saw = _but_for(BLOCKS[BTC.symbol][:390], missed)
    live = LiveFeatures(SYMBOLS)
    live.advance(BTC.symbol, saw)
    live.advance(ETH.symbol, BLOCKS[ETH.symbol][:390])
    save_states(live, venue=BTC.venue, folder=tmp_path, timeframe=Timeframe.M5, recent=_recent_of(saw))

    live = LiveFeatures(SYMBOLS)
    done = await catch_up(live, _Venue(), venue=BTC.venue, homes=[tmp_path], timeframe=Timeframe.M5, now_ms=NOW_MS)

    assert done.restored == {ETH.symbol}
    assert set(done.outdated) == {BTC.symbol}
    assert done.outdated[BTC.symbol].endswith("came late")
    assert _as_if_never_stopped(live)


async def test_a_state_of_another_candle_than_is_known_now_is_not_gone_on_from(tmp_path):
    """A candle that was corrected while the worker was down is noticed without any memory but the state's own."""
    wrong = BLOCKS[BTC.symbol].values.copy()
    wrong[370, 4] *= 2
    live = LiveFeatures(SYMBOLS)
    live.advance(BTC.symbol, CandleBlock(BLOCKS[BTC.symbol].open_time_ms, wrong)[:390])
    save_states(live, venue=BTC.venue, folder=tmp_path, timeframe=Timeframe.M5)

    live = LiveFeatures(SYMBOLS)
    done = await catch_up(live, _Venue(), venue=BTC.venue, homes=[tmp_path], timeframe=Timeframe.M5, now_ms=NOW_MS)

    assert done.outdated == {BTC.symbol: "the venue tells other candles than those of the stored state"}
    assert _as_if_never_stopped(live)


async def test_a_hole_that_the_venue_has_as_well_is_gone_on_from(tmp_path):
    """A candle that there still is not makes no state outdated."""
    blocks = {symbol: _but_for(block, 200, 380) for symbol, block in BLOCKS.items()}
    live = LiveFeatures(SYMBOLS)
    for symbol in SYMBOLS:
        live.advance(symbol, blocks[symbol][:388])
    recent = _recent_of(blocks[BTC.symbol][:388])
    save_states(live, venue=BTC.venue, folder=tmp_path, timeframe=Timeframe.M5, recent=recent)

    live = LiveFeatures(SYMBOLS)
    venue = _Venue(blocks)
    done = await catch_up(live, venue, venue=BTC.venue, homes=[tmp_path], timeframe=Timeframe.M5, now_ms=NOW_MS)

    assert done.restored == set(SYMBOLS)
    assert done.recent.block(BTC.symbol).equals(blocks[BTC.symbol])
    assert live.continuity(BTC.symbol).candles == 398


async def test_a_stale_state_is_not_kept(tmp_path):
    """What waits to be rebuilt when the worker stops is read from the venue at the next start."""
    save_states(_live(390), venue=BTC.venue, folder=tmp_path, timeframe=Timeframe.M5, stale={BTC.symbol})

    live, from_snapshot, _ = await _started(tmp_path)

    assert from_snapshot == 1
    assert live.last_open_time_ms(BTC.symbol) == NOW_MS - STEP


async def test_damaged_recent_candles_cost_nothing(tmp_path):
    """Without the memory of what a state was made from the state itself is compared still."""
    whole = BLOCKS[BTC.symbol][:390]
    save_states(_live(390), venue=BTC.venue, folder=tmp_path, timeframe=Timeframe.M5, recent=_recent_of(whole))
    path = states_path(tmp_path, BTC.venue, "5m").with_name("recent.npz")
    path.write_bytes(path.read_bytes()[:-40])

    live, from_snapshot, _ = await _started(tmp_path)

    assert from_snapshot == 2
    assert _as_if_never_stopped(live)
