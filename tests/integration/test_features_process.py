from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from feature_store.candle import Timeframe
from feature_store.errors import BadInputError, CorruptFileError, FingerprintMismatchError
from feature_store.features import state as state_module
from feature_store.features.engine import FeatureEngine
from feature_store.features.live import LiveFeatures
from feature_store.features.state import load_state, restore, save_state, snapshot
from tests.feature_support import BTC, ETH, REPOSITORY, market, python, same

LIGHT = (
    "feature_store.candle",
    "feature_store.clock",
    "feature_store.errors",
    "feature_store.features.engine",
    "feature_store.features.live",
    "feature_store.features.state",
    "feature_store.features.warm",
    "feature_store.venue.factory",
    "feature_store.venue.errors",
    "feature_store.venue.async_time",
    "feature_store.sources.ccxt_candles",
)
HEAVY = ("duckdb", "polars", "pyarrow", "pandas", "sklearn", "torch")
WORKER_PYTHON = REPOSITORY / ".venv-worker" / "bin" / "python"

CONTINUE = """
import sys, pathlib, numpy as np
from feature_store.features.engine import FeatureEngine
from feature_store.features.state import load_state
from tests.feature_support import BTC, market
engine = FeatureEngine(BTC.timeframe, load_state(pathlib.Path(sys.argv[1]), BTC))
features = engine.advance(market(900)[600:])
np.savez(sys.argv[2], features=features, inputs=engine.state.inputs, returns=engine.state.returns)
"""


def interpreters() -> list[str]:
    """This interpreter, and the worker's where it is installed."""
    import sys

    return [sys.executable, *([str(WORKER_PYTHON)] if WORKER_PYTHON.exists() else [])]


@pytest.mark.parametrize("interpreter", interpreters())
def test_a_fresh_process_goes_on_to_the_bit(tmp_path, interpreter):
    """A state that is saved and loaded elsewhere gives the same bits as if nothing had stopped."""
    whole = FeatureEngine(Timeframe.M5)
    expected = whole.advance(market(900))
    half = FeatureEngine(Timeframe.M5)
    half.advance(market(900)[:600])
    save_state(tmp_path / "state.npz", BTC, half.state)
    python(CONTINUE, str(tmp_path / "state.npz"), str(tmp_path / "out.npz"), interpreter=interpreter)
    with np.load(tmp_path / "out.npz") as out:
        assert same(out["features"], expected[600:])
        assert same(out["inputs"], whole.state.inputs)
        assert same(out["returns"], whole.state.returns)


@pytest.mark.parametrize("interpreter", interpreters())
def test_what_the_worker_imports_is_light(interpreter):
    """The modules that the worker uses pull in none of the pipeline's libraries."""
    code = f"import {', '.join(LIGHT)}, sys, json; print(json.dumps(sorted(sys.modules)))"
    loaded = set(json.loads(python(code, interpreter=interpreter)))
    assert loaded.isdisjoint(HEAVY)


def test_candles_and_errors_need_no_numba():
    """What every program imports costs nothing but numpy."""
    loaded = python("import feature_store.candle, feature_store.features.definition, sys; print(*sys.modules)").split()
    assert not {"numba", "ccxt"} & set(loaded)


def test_live_states_move_between_processes(tmp_path):
    """A worker that saves its states and starts again has the same windows at once."""
    live = LiveFeatures([BTC.symbol, ETH.symbol])
    live.advance(BTC.symbol, market(300))
    live.save(tmp_path / "btc.npz", BTC)
    other = LiveFeatures([ETH.symbol, BTC.symbol])
    assert other.load(tmp_path / "btc.npz", BTC)
    assert not other.load(tmp_path / "eth.npz", ETH)
    assert same(other.latest().windows[1], live.latest().windows[0])
    assert other.last_open_time_ms(BTC.symbol) == market(300).last_open_time_ms


def _saved(path: Path) -> bytes:
    engine = FeatureEngine(Timeframe.M5)
    engine.advance(market(100))
    save_state(path, BTC, engine.state)
    return path.read_bytes()


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_truncated_state_is_refused(tmp_path, keep):
    """A state file that was cut off is named, with the remedy, and not used."""
    path = tmp_path / "state.npz"
    content = _saved(path)
    path.write_bytes(content[: int(keep if keep >= 1 or keep == 0 else keep * len(content))])
    with pytest.raises(CorruptFileError, match=r"state\.npz.*qtctl features"):
        load_state(path, BTC)


def test_one_flipped_byte_is_found(tmp_path):
    """Wherever a byte of the state flips, loading refuses or gives the very same state."""
    path = tmp_path / "state.npz"
    content = _saved(path)
    _, whole = restore(content)
    for at in range(0, len(content), 97):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :])
        try:
            state = load_state(path, BTC)
        except (CorruptFileError, FingerprintMismatchError):
            continue
        assert all(same(array, whole.arrays()[name]) for name, array in state.arrays().items())


def test_a_state_of_another_feature_set_is_refused(tmp_path, monkeypatch):
    """A fingerprint that differs refuses, and says what to do."""
    engine = FeatureEngine(Timeframe.M5)
    monkeypatch.setattr(state_module, "fingerprint", lambda: "f" * 64)
    save_state(tmp_path / "state.npz", BTC, engine.state)
    monkeypatch.undo()
    with pytest.raises(FingerprintMismatchError, match="qtctl features"):
        load_state(tmp_path / "state.npz", BTC)


def test_a_state_of_another_series_is_refused(tmp_path):
    """A file in the wrong place is not taken for the right one."""
    _saved(tmp_path / "state.npz")
    with pytest.raises(CorruptFileError, match=r"not sandbox\|ETH"):
        load_state(tmp_path / "state.npz", ETH)


def test_a_snapshot_is_no_pickle():
    """A state that holds a pickled object is refused unread."""
    import io

    buffer = io.BytesIO()
    np.savez(buffer, meta=np.array([{"a": 1}], dtype=object))
    with pytest.raises(BadInputError):
        restore(buffer.getvalue())
    assert restore(snapshot(BTC, FeatureEngine(Timeframe.M5).state))[0] == BTC
