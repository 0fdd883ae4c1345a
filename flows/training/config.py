"""Every size and choice of a training run, frozen and documented."""

from __future__ import annotations

from typing import Literal

import msgspec


class TreeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """
    Gradient-boosted trees.

    Market returns are nearly all noise, so trees are shallow, leaves large and steps small: a member that learned
    nothing should answer next to zero rather than confident nonsense.
    """

    rounds: int = 240
    depth: int = 3
    learning_rate: float = 0.03
    min_leaf_rows: int = 200
    row_fraction: float = 0.6
    column_fraction: float = 0.4
    l2: float = 20.0
    # Every n-th candle of a series is a row: neighbours share 11 of 12 candles of their labels.
    row_stride: int = 3
    # A small straight line in each leaf instead of one number (LightGBM only): much of what moves returns is nearly
    # linear, and steps spend their leaves on copying a slope.
    linear_leaves: bool = False
    linear_l2: float = 1e-3


class NetConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A net from neuralforecast: how long and on how much it trains."""

    max_steps: int
    learning_rate: float
    hidden: int
    series_per_batch: int = 4
    windows_per_batch: int = 256
    # Candles between the windows of one batch: neuralforecast copies all windows of its series on every step.
    window_stride: int = 6
    dropout: float = 0.1
    weight_decay: float = 1e-3


NHITS_INPUTS = (
    "relative_momentum_12",
    "relative_momentum_48",
    "rsi",
    "bollinger_position",
    "macd_histogram_in_atr",
    "distance_ema_20",
    "trend_direction",
    "volume_ratio",
    "volatility_change",
    "mfi",
)
"""The inputs whose path over 64 candles may tell more than their newest value; the trees see all of them anyway."""


SUMMARISED_INPUTS = (
    "volume_ratio",
    "log_return_1",
    "rsi",
    "bollinger_position",
    "mfi",
    "volatility_20",
    "atr_volatility",
)
"""The inputs that trees and the ridge also read as means over the window: what lasts drowns in a single candle."""


class TrainingConfig(msgspec.Struct, frozen=True, kw_only=True):
    """
    One training run.

    `created_at` (ISO 8601, UTC) and `code_version` are written into the bundle as they are given. Costs are per side:
    a trade pays them twice.
    """

    created_at: str
    code_version: str
    timeframe: str = "5m"
    horizon: int = 12
    window: int = 64
    seed: int = 7
    threads: int = 1

    # Shares of the whole stretch, oldest first; what is left after these three is the locked shadow window.
    fit_share: float = 0.60
    validation_share: float = 0.11
    calibration_share: float = 0.11
    # Candles dropped between two windows, at least the horizon, on top of labels that must end inside their window.
    embargo: int = 12

    # How much of the market's common move is taken off the labels that members and scales are learned on.
    market_share_removed: float = 0.75

    members: tuple[str, ...] = ("xgboost", "lightgbm", "nhits", "patchtst")
    xgboost: TreeConfig = TreeConfig(rounds=400)
    lightgbm: TreeConfig = TreeConfig(rounds=200, depth=4, min_leaf_rows=1000, linear_leaves=True)
    nhits: NetConfig = NetConfig(max_steps=700, learning_rate=5e-4, hidden=32, dropout=0.3, weight_decay=3e-2)
    patchtst: NetConfig = NetConfig(max_steps=250, learning_rate=1e-3, hidden=32)
    nhits_inputs: tuple[str, ...] = NHITS_INPUTS
    summarised_inputs: tuple[str, ...] = SUMMARISED_INPUTS
    summary_lengths: tuple[int, ...] = (4, 8, 16, 32, 64)

    weighting: Literal["skill", "fixed"] = "skill"
    # How far weights by explained variance are pulled to equal ones, and the most that one member may have.
    weight_shrinkage: float = 0.25
    weight_cap: float = 0.4
    calibration_method: Literal["logistic", "isotonic"] = "logistic"

    fee_bps: float = 5.0
    slippage_bps: float = 2.0
    # A threshold on which fewer trades than this were seen is not chosen.
    min_threshold_trades: int = 30

    golden_rows: int = 16
    parity_rows: int = 256
    # Stride over evaluation windows; 1 scores every candle.
    evaluation_stride: int = 1
    bootstrap_samples: int = 1000

    def row_inputs(self, input_names: tuple[str, ...]) -> tuple[str, ...]:
        """Return what members that read single rows read: every input's newest value, and means of some."""
        means = (f"{name}/mean_{length}" for name in self.summarised_inputs for length in self.summary_lengths)
        return (*input_names, *means)

    @property
    def round_trip_cost(self) -> float:
        """What entering and leaving costs, as a fraction of notional."""
        return 2 * (self.fee_bps + self.slippage_bps) / 10_000
