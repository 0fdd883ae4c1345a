"""Kept machine code against numba's own, on any candles and any state."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from feature_store.features import native
from feature_store.features.definition import WARM_UP
from feature_store.features.machine_code import LoadedCode, processor_levels, read

ANY = st.floats(allow_nan=True, allow_infinity=True, allow_subnormal=True, width=64)
PRICES = st.floats(min_value=1e-9, max_value=1e9)
_WARM_UP = np.array(WARM_UP, dtype=np.int64)


@pytest.fixture(scope="module")
def by_numba() -> dict:
    """Return the kernel as numba compiles it for this very processor, where machine code cannot be kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "is_portable", lambda: False)
        assert native.kept_addresses() is None
        addresses = native._fallen_back()
    assert addresses is not None
    return {name: native._SIGNATURES[name](address) for name, address in addresses.items()}


@pytest.fixture(scope="module", params=processor_levels())
def by_file(request) -> dict:
    """Return the kernel as it was kept, at each level that this processor runs."""
    path = next(file for file in native.files() if file.exists())
    loaded = LoadedCode(read(path, made_from=native.made_from()))
    native._LOADED.append(loaded)
    return {name: kind(loaded.addresses[f"{name}@{request.param}"]) for name, kind in native._SIGNATURES.items()}


def _outcome(functions, monkeypatch, seen, bars, tail, state) -> list[np.ndarray]:
    tail, state = tail.copy(), state.copy()
    out, inputs = np.empty((len(bars), 49)), np.empty((len(bars), 41), np.float32)
    with monkeypatch.context() as patch:
        patch.setattr(native, "functions", lambda: functions)
        native.advance(seen, bars, tail, state, _WARM_UP, out)
        native.compute_inputs(out, inputs)
    return [tail, state, out, inputs]


def _bits(array: np.ndarray) -> bytes:
    # Which of two NaNs an addition hands on is not defined; that it is one, is.
    return np.where(np.isnan(array), array.dtype.type(np.nan), array).tobytes()


@pytest.mark.parametrize("values", [PRICES, ANY], ids=["prices", "anything"])
def test_kept_code_and_numba_agree_to_the_bit(values, by_file, by_numba, monkeypatch):
    """Whatever stands in candles, tail and state, both give the same bits, signs of zero included."""

    @settings(max_examples=150, deadline=None)
    @given(data=st.data(), rows=st.integers(1, 12), seen=st.integers(0, 200))
    def agree(data, rows, seen):
        bars, tail, state = (
            data.draw(arrays.arrays(np.float64, shape, elements=values, fill=values))
            for shape in ((rows, 5), (5, 64), (24,))
        )
        found = _outcome(by_file, monkeypatch, seen, bars, tail, state)
        expected = _outcome(by_numba, monkeypatch, seen, bars, tail, state)
        assert [_bits(one) for one in found] == [_bits(one) for one in expected]

    agree()


@pytest.mark.parametrize("seed", range(4))
def test_they_agree_on_whole_blocks(seed, by_file, by_numba, monkeypatch):
    """Blocks that the compiler handles many candles at a time give the same bits, too."""
    rng = np.random.default_rng(seed)
    for rows in (63, 64, 65, 255, 256):
        bars = np.exp(rng.normal(0, 10.0**-seed, (rows, 5)))
        tail, state = np.exp(rng.normal(0, 1, (5, 64))), rng.normal(0, 1, 24)
        found = _outcome(by_file, monkeypatch, 500, bars, tail, state)
        expected = _outcome(by_numba, monkeypatch, 500, bars, tail, state)

        assert [_bits(one) for one in found] == [_bits(one) for one in expected]
