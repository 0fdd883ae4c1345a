"""What recorded prices say of the instrument they were recorded of: its ticks, and the prices in them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from infra.sandbox.engine.instrument import Instrument, instrument_for_price


def recorded_instrument(symbol: str, base: str, prices: npt.NDArray[np.float64]) -> Instrument:
    """
    Return the instrument that prices, any shape, seem to have been recorded of.

    Its tick is the coarsest that the prices lie on, as far as a sample tells.
    """
    sample = prices[:: max(1, len(prices) // 2_000)].ravel()
    median = float(np.median(sample))
    # Resampled recordings have averages with endless decimals; a tick below a tenth of a basis point is noise.
    finest = next((k for k in range(9) if median * 10**k >= 100_000), 8)
    decimals = next(
        (k for k in range(finest) if np.allclose(sample * 10**k, np.rint(sample * 10**k), rtol=0, atol=1e-3)), finest
    )
    return instrument_for_price(symbol, base, median, price_decimals=decimals)


def in_ticks(prices: npt.NDArray[np.float64], instrument: Instrument) -> npt.NDArray[np.int64]:
    """Return prices as whole ticks of an instrument."""
    return np.rint(prices * 10.0**instrument.price_decimals).astype(np.int64)
