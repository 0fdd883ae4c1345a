"""The one compiled kernel: candles and state in, 49 features and state out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from feature_store.features import averages, windows
from feature_store.features.inputs import inputs_at
from feature_store.features.layout import (
    B0,
    B1,
    BEGIN,
    BLOCK,
    CARRIED,
    FEATURE_COUNT,
    INPUTS,
    LOG_RETURN_1,
    STATE_SIZE,
    TAIL,
    WIDTH,
    compiled,
)
from feature_store.features.recursions import recursions
from feature_store.features.streaming import settled, stream

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Integers = npt.NDArray[np.int64]
    Place = Any  # An unsigned number; range makes an int of it for whoever checks types.

WINDOW = 64  # Rows of inputs that sequence models read; candle n of a series has slot n % 64 of their ring.
COUNTERS = 8
LONG = 4_096  # Features of so many candles are more than a cache holds: they are written past it.
MOST_WARM_UP = 64
_SEEN, _FIRST, _LAST, _BRIDGED, _MISSING, _RESTARTS, _IGNORED, _SINCE_GAP = range(8)


@compiled
def _block(w: Floats, seen: int, state: Floats, warm_up: Integers, low: Place, end: Place) -> None:
    # The candles of the block stand in the room, and what came before them.
    windows.log_returns(w, low, end)
    windows.price_returns(w, low, end)
    windows.returns(w, low, end)
    windows.volatilities(w, end)
    averages.closes(w, low, end)
    averages.averages(w, end)
    windows.volumes(w, low, end)
    windows.ranges(w, low, end)
    windows.movements(w, end)
    windows.flows(w, low, end)
    averages.channel(w, low, end)
    recursions(w, state, seen, end)
    if seen < MOST_WARM_UP:
        for feature in range(FEATURE_COUNT):
            absent = min(warm_up[feature] - seen, np.int64(end - BEGIN))
            for row in range(max(absent, 0)):
                w[np.uint64(feature * WIDTH) + BEGIN + np.uint64(row)] = np.nan


@compiled
def _carry(w: Floats, rows: Place) -> None:
    # Move the last 64 of whatever reaches back to the front of its row.
    for row in range(FEATURE_COUNT + CARRIED):
        if row < 5 or row >= FEATURE_COUNT or row * WIDTH == LOG_RETURN_1:
            begin = np.uint64(row * WIDTH)
            for at in range(BEGIN):
                w[begin + at] = w[begin + rows + at]


@compiled
def _remember(w: Floats, tail: Floats) -> None:
    for column in range(5):
        for at in range(TAIL):
            w[np.uint64(column * WIDTH + at)] = tail[np.uint64(column * TAIL + at)]


@compiled
def _keep(w: Floats, tail: Floats, size: Place) -> None:
    for column in range(5):
        for at in range(TAIL):
            tail[np.uint64(column * TAIL + at)] = w[np.uint64(column * WIDTH + at) + size]


@compiled
def _read(w: Floats, bars: Floats, step: Place, apart: Place, done: Place, size: Place) -> None:
    for column in range(5):
        goal, source = np.uint64(column * WIDTH) + BEGIN, np.uint64(column) * apart + done * step
        for row in range(size):
            w[goal + row] = bars[source + row * step]


@compiled
def _write(
    w: Floats,
    out: Floats,
    step: Place,
    apart: Place,
    done: Place,
    size: Place,
    is_long: bool,  # noqa: FBT001
) -> None:
    for feature in range(FEATURE_COUNT):
        source, goal = np.uint64(feature * WIDTH) + BEGIN, np.uint64(feature) * apart + done * step
        if (step == B1) & is_long:
            stream(w, source, out, goal, size)
        elif step == B1:
            for row in range(size):
                out[goal + row] = w[source + row]
        else:
            for row in range(size):
                out[goal + row * step] = w[source + row]


@compiled
def advance(  # noqa: PLR0917 - machine code takes its arguments one by one
    seen: int,
    rows: int,
    bars: Floats,
    bar_step: int,
    column_step: int,
    tail: Floats,
    state: Floats,
    warm_up: Integers,
    w: Floats,
    out: Floats,
    out_row_step: int,
    out_column_step: int,
) -> None:
    """
    Compute the features of the next candles of one series.

    Args:
        seen: Candles of this series so far.
        rows: How many candles follow; any number at once gives the same bits.
        bars: Their numbers; one of the five begins `column_step` behind the other, a candle `bar_step`.
        bar_step: See `bars`.
        column_step: See `bars`.
        tail: The 64 candles before them [5, 64], zeros where there were none; moved forward in place.
        state: What the recursions carry [STATE_SIZE], zeros at the start; moved forward in place.
        warm_up: Candles without a value at the start of a series, by feature [49].
        w: Room [ROWS, WIDTH]; nothing is allocated here, and nothing raises.
        out: The features, NaN during warm-up; laid out by the two steps that follow, as `bars` is.
        out_row_step: See `out`.
        out_column_step: See `out`.
    """
    _remember(w, tail)
    low, done, count = B0, np.uint64(0), np.uint64(rows)
    is_long = rows >= LONG
    while done < count:
        size = min(count - done, np.uint64(BLOCK))
        _read(w, bars, np.uint64(bar_step), np.uint64(column_step), done, size)
        _block(w, seen + int(done), state, warm_up, low, BEGIN + size)
        _write(w, out, np.uint64(out_row_step), np.uint64(out_column_step), done, size, is_long)
        done += size
        low = BEGIN
        if done < count:
            _carry(w, size)
        else:
            _keep(w, tail, size)
    if is_long:
        settled()


@compiled
def compute_inputs(
    rows: int, features: Floats, row_step: int, column_step: int, w: Floats, out: npt.NDArray[np.float32]
) -> None:
    """Turn rows of features into model inputs [rows, INPUTS], each row by itself; laid out as in `advance`."""
    for row in range(np.uint64(rows)):
        for feature in range(FEATURE_COUNT):
            source = np.uint64(feature) * np.uint64(column_step) + row * np.uint64(row_step)
            w[np.uint64(feature * WIDTH)] = features[source]
        inputs_at(w, B0, out, row * np.uint64(INPUTS))


@compiled
def _is_sound(open_: float, high: float, low: float, close: float, volume: float) -> bool:
    # NaN fails every comparison; an infinite high or volume would pass them.
    ordered = (low > 0.0) & (low <= open_) & (low <= close) & (high >= open_) & (high >= close)
    return ordered & (volume >= 0.0) & (high < np.inf) & (volume < np.inf)


@compiled
def check(rows: int, times: Integers, bars: Floats, step_ms: int, found: Integers) -> None:
    """Count candles [rows, 5] that no market could have made or that are out of order, and those after a gap."""
    wrong = 0
    gaps = 0
    before = times[0] - step_ms
    for row in range(np.uint64(rows)):
        at = row * np.uint64(5)
        sound = _is_sound(
            bars[at], bars[at + B1], bars[at + np.uint64(2)], bars[at + np.uint64(3)], bars[at + np.uint64(4)]
        )
        now = times[row]
        if now - before != step_ms:
            gaps += 1
            sound &= now > before
        if (row == B0) | (now - before != step_ms):
            sound &= now % step_ms == 0
        wrong += 0 if sound else 1
        before = now
    found[0], found[1] = wrong, gaps


@compiled
def _restart(tail: Floats, state: Floats, inputs: npt.NDArray[np.float32], returns: Floats) -> None:
    for at in range(np.uint64(5 * TAIL)):
        tail[at] = 0.0
    for at in range(np.uint64(STATE_SIZE)):
        state[at] = 0.0
    for at in range(np.uint64(WINDOW * INPUTS)):
        inputs[at] = np.nan
    for at in range(np.uint64(WINDOW)):
        returns[at] = np.nan


@compiled
def take_candle(  # noqa: PLR0917
    time_ms: int,
    step_ms: int,
    bar: Floats,
    tail: Floats,
    state: Floats,
    counters: Integers,
    inputs: npt.NDArray[np.float32],
    returns: Floats,
    warm_up: Integers,
    w: Floats,
    out: Floats,
) -> int:
    """
    Take in one closed candle of one series by the rules of FeatureEngine; its features are the row `out`.

    Return 1 if it was taken in, 0 if it was ignored, and -1 if no market could have made it; then nothing changed.
    """
    if time_ms % step_ms != 0 or not _is_sound(bar[0], bar[1], bar[2], bar[3], bar[4]):
        return -1
    missing = 0
    if counters[_SEEN] > 0:
        if time_ms <= counters[_LAST]:
            counters[_IGNORED] += 1
            return 0
        missing = (time_ms - counters[_LAST]) // step_ms - 1
    if missing > TAIL:
        _restart(tail, state, inputs, returns)
        counters[_SEEN] = 0
        counters[_SINCE_GAP] = 0
        counters[_RESTARTS] += 1
    seen = counters[_SEEN]
    if seen == 0:
        counters[_FIRST] = time_ms
    advance(seen, 1, bar, 5, 1, tail, state, warm_up, w, out, FEATURE_COUNT, 1)
    counters[_SEEN] = seen + 1
    counters[_LAST] = time_ms
    counters[_SINCE_GAP] += 1
    if missing > 0:
        counters[_BRIDGED] += 1 if missing <= TAIL else 0
        counters[_MISSING] += missing
        counters[_SINCE_GAP] = 1
    slot = np.uint64(seen) % np.uint64(WINDOW)
    inputs_at(w, BEGIN, inputs, slot * np.uint64(INPUTS))
    returns[slot] = w[LOG_RETURN_1 + BEGIN]
    return 1


@compiled
def take_candles(  # noqa: PLR0917
    count: int,
    places: Integers,
    times: Integers,
    step_ms: int,
    bars: Floats,
    tails: Floats,
    states: Floats,
    counters: Integers,
    inputs: npt.NDArray[np.float32],
    returns: Floats,
    warm_up: Integers,
    w: Floats,
    out: Floats,
    taken: Integers,
) -> None:
    """Take in one closed candle [count, 5] of each of several series, whose arrays lie one behind the other."""
    for one in range(count):
        at = places[one]
        taken[one] = take_candle(
            times[one],
            step_ms,
            bars[5 * one : 5 * one + 5],
            tails[5 * TAIL * at : 5 * TAIL * (at + 1)],
            states[STATE_SIZE * at : STATE_SIZE * (at + 1)],
            counters[COUNTERS * at : COUNTERS * (at + 1)],
            inputs[WINDOW * INPUTS * at : WINDOW * INPUTS * (at + 1)],
            returns[WINDOW * at : WINDOW * (at + 1)],
            warm_up,
            w,
            out[FEATURE_COUNT * one : FEATURE_COUNT * (one + 1)],
        )
