"""Which candles may be used for what: windows in time, purged and embargoed."""

from __future__ import annotations

from itertools import pairwise

import msgspec

from feature_store.errors import BadInputError
from flows.training.config import TrainingConfig
from inference.models.manifest import TimeWindow, TrainingWindows


class Splits(msgspec.Struct, frozen=True, kw_only=True):
    """
    Four windows, oldest first, that share nothing.

    A row belongs to a window when its candle and the whole of its label lie inside: the horizon before each window's
    end is purged. In the fit window members learn from no row either of which what they learn may end later than the
    window does, as a trade held until a barrier may. Between two windows at least `embargo` candles belong to nobody.
    """

    fit: TimeWindow
    validation: TimeWindow
    calibration: TimeWindow
    shadow: TimeWindow
    horizon_ms: int

    def last_row_ms(self, window: TimeWindow) -> int:
        """Return the open time before which a row's label ends inside the window."""
        return window.end_ms - self.horizon_ms

    def as_manifest(self) -> TrainingWindows:
        """Return the windows as the bundle records them."""
        return TrainingWindows(
            fit=self.fit, validation=self.validation, calibration=self.calibration, shadow=self.shadow
        )


def plan_splits(start_ms: int, end_ms: int, config: TrainingConfig, *, timeframe_ms: int) -> Splits:
    """
    Cut `[start_ms, end_ms)` into fit, validation, calibration and shadow, in this order.

    Raises:
        BadInputError: The shares or the embargo leave a window without room for a label.
    """
    shares = (config.fit_share, config.validation_share, config.calibration_share)
    if min(shares) <= 0 or sum(shares) >= 1:
        raise BadInputError(f"Shares must be positive and sum below 1, which leaves the shadow window; were {shares}")
    if config.embargo < config.horizon:
        raise BadInputError(f"The embargo must be at least the horizon of {config.horizon}, was {config.embargo}")

    candles = (end_ms - start_ms) // timeframe_ms
    cuts = [0, *(round(candles * sum(shares[: n + 1])) for n in range(3)), candles]
    windows = []
    for number, (first, last) in enumerate(pairwise(cuts)):
        begin = first + (config.embargo if number else 0)
        if last - begin < 4 * config.horizon:
            raise BadInputError(
                f"{candles} candles are too few for four windows with labels of {config.horizon}; load more days"
            )
        windows.append(TimeWindow(start_ms=start_ms + begin * timeframe_ms, end_ms=start_ms + last * timeframe_ms))

    return Splits(
        fit=windows[0],
        validation=windows[1],
        calibration=windows[2],
        shadow=windows[3],
        horizon_ms=config.horizon * timeframe_ms,
    )
