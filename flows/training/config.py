"""Every size and choice of a training run, frozen and documented."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from feature_store.universe.candle_filters import CandleFilters
from flows.training.tripwire_bounds import TripwireBounds
from inference.models.manifest import EnsembleMode, TimeWindow, Weighting, split_input


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


class ForestConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A random forest; its rows lie a horizon apart, since deep trees learn overlapping labels by heart."""

    trees: int = 40
    depth: int = 8
    min_leaf_rows: int = 50
    row_fraction: float = 0.5
    column_fraction: float = 0.3
    row_stride: int = 12


class MlpConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One hidden layer; `passes` over the rows and no early stop, so that equal runs are equal."""

    hidden: int = 16
    passes: int = 6
    learning_rate: float = 1e-3
    rows_per_batch: int = 256
    l2: float = 1.0
    row_stride: int = 6


class HeadConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Trees that answer with quantiles or with the direction: fewer than a member's, since little is asked of them."""

    rounds: int = 120
    depth: int = 3
    learning_rate: float = 0.05
    min_leaf_rows: int = 200
    row_stride: int = 3
    levels: tuple[float, ...] = (0.1, 0.5, 0.9)


class BarrierSizes(msgspec.Struct, frozen=True, kw_only=True):
    """Where trades end: multiples of the average true range, and candles held at most."""

    stop_atr_multiple: float
    target_atr_multiple: float
    holding_candles: int


class FoldConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How often cheap refits are tested over the stretch before the shadow window, and on how much of it."""

    walk_forward: int = 5
    # Combinatorial purged cross-validation: of 6 groups every 2 are tested, which makes 15 folds and 5 histories.
    groups: int = 6
    tested: int = 2
    # Boosting rounds of the small trees; the members themselves would take hours.
    rounds: int = 40
    # Rows are thinned out to about so many.
    most_rows: int = 20_000


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

    # What trees learn. "forward": the log return over the horizon. "net": the same net of costs and stored funding, for
    # one who is long; constant costs only shift it, and targets are centred, so that hardly anything but funding
    # makes a difference. "barrier": the net log return of the exit that stop, target or time took, for one who is long.
    # Nets forecast returns candle by candle and learn those, whatever is chosen here. Scales, weights, calibration,
    # thresholds, baselines and gates are of the forward return in any case, so that candidates can be compared.
    label: Literal["forward", "net", "barrier"] = "forward"
    # Where the barriers of that label are; None where the built-in policy puts them.
    barriers: BarrierSizes | None = None

    # How much of the market's common move is taken off the labels that members and scales are learned on.
    market_share_removed: float = 0.75

    members: tuple[str, ...] = ("xgboost", "lightgbm", "nhits", "patchtst")
    xgboost: TreeConfig = TreeConfig(rounds=400, depth=2, column_fraction=0.7)
    lightgbm: TreeConfig = TreeConfig(rounds=200, depth=2, column_fraction=0.7, min_leaf_rows=1000, linear_leaves=True)
    nhits: NetConfig = NetConfig(max_steps=700, learning_rate=5e-4, hidden=32, dropout=0.3, weight_decay=3e-2)
    patchtst: NetConfig = NetConfig(max_steps=250, learning_rate=1e-3, hidden=32)
    # Trained beside the members and reported, without a vote; None is every member whose file says so.
    compared: tuple[str, ...] | None = None
    forest: ForestConfig = ForestConfig()
    mlp: MlpConfig = MlpConfig()
    dlinear: NetConfig = NetConfig(max_steps=150, learning_rate=1e-3, hidden=1)
    # Answered beside the expected return: "quantile" an interval of the return, "direction" a probability of a rise.
    heads: tuple[Literal["quantile", "direction"], ...] = ()
    head: HeadConfig = HeadConfig()
    # Where nets train; trees train on the CPU, since the pinned build of XGBoost knows no other place.
    device: Literal["cpu", "gpu"] = "cpu"
    nhits_inputs: tuple[str, ...] = NHITS_INPUTS
    summarised_inputs: tuple[str, ...] = SUMMARISED_INPUTS
    summary_lengths: tuple[int, ...] = (4, 8, 16, 32, 64)

    # Inputs that members of single rows do not read, as a tuning chose; baselines and tripwires read them all the same.
    dropped_inputs: tuple[str, ...] = ()

    # What a row counts in the trees and the ridge: "uniqueness" makes rows whose labels overlap share one voice. Where
    # all labels are one horizon long and rows lie at one stride, they overlap alike except beside gaps and edges, so
    # that it changes little; labels of barriers end at different times. Nets take no weights: neuralforecast draws
    # windows by itself. The default is the one that the gates' bounds were set with.
    row_weighting: Literal["equal", "uniqueness"] = "equal"
    # The moment (ISO 8601, UTC) as of which everything is learned: what became known later does not count. None is now.
    as_of: str | None = None
    # Fingerprint of the universe's rules where the symbols are those that were in it at each moment; else all count.
    universe: str | None = None
    # What of those rules is asked again at each candle; None in runs that asked weekly only.
    universe_filters: CandleFilters | None = None

    # "voting" is the weighted mean of the members; "bagging" that of members that each are the mean of several draws of
    # whole days with replacement; "stacking" leaves the weights to non-negative least squares alone, neither shrunk nor
    # capped.
    ensemble_mode: EnsembleMode = "voting"
    draws: int = 3
    # "stacking" by non-negative least squares out of fold, "skill" by the variance that each explains, "equal", or
    # "fixed" by the shares in the members' own files. Learned ones are learned on the validation window, which no
    # member was fitted on (infra/adr/0012-a-member-is-a-file.md has what was compared).
    weighting: Weighting = "stacking"
    # How far learned weights are pulled to equal ones, and the most that one member may have.
    weight_shrinkage: float = 0.25
    weight_cap: float = 0.4
    # Shares of the vote for weights that are "fixed", as a tuning chose them; None are those of the members' files.
    member_shares: dict[str, float] | None = None
    calibration_method: Literal["logistic", "isotonic"] = "logistic"

    fee_bps: float = 5.0
    slippage_bps: float = 2.0
    # A threshold on which fewer trades than this were seen is not chosen.
    min_threshold_trades: int = 30
    # The least and the most confidence that a threshold may ask for; all that are tried, unless a tuning chose fewer.
    threshold_bounds: tuple[float, float] = (0.51, 0.75)

    # Folds by which skill is measured once more, with models that are cheap to fit again; and what fails the run.
    folds: FoldConfig = FoldConfig()
    tripwires: TripwireBounds = TripwireBounds()

    # The study whose best choice this training takes, and how many choices were tried in it: what won among many has to
    # show more than what was the only one.
    tuning_study: str | None = None
    tuning_trials: int = 0
    # The candles that it looked at; none of them may weigh, calibrate or judge what it chose.
    tuning_looked_at: TimeWindow | None = None
    # Where the trades ended by which that choice was scored; None are trades of one horizon. A label `barrier` takes
    # them where nobody names a policy; a worker takes exits from its policy alone.
    traded_exits: BarrierSizes | None = None

    # What the worker tells regimes by is learned on so many stretches of about a day, in so many rounds; ranges of
    # inputs on so many rows. All of a long training would take minutes and say the same.
    regime_stretches: int = 160
    regime_rounds: int = 80
    range_rows: int = 60_000

    golden_rows: int = 16
    parity_rows: int = 256
    # Stride over evaluation windows; 1 scores every candle.
    evaluation_stride: int = 1
    bootstrap_samples: int = 1000

    def row_inputs(self, input_names: tuple[str, ...]) -> tuple[str, ...]:
        """Return what members that read single rows read: every input's newest value, and means of some."""
        means = (f"{name}/mean_{length}" for name in self.summarised_inputs for length in self.summary_lengths)
        return (*input_names, *means)

    def member_inputs(self, input_names: tuple[str, ...]) -> tuple[str, ...]:
        """Return those of the row inputs that members read: all but what tuning found them better without."""
        dropped = frozenset(self.dropped_inputs)
        return tuple(name for name in self.row_inputs(input_names) if split_input(name)[0] not in dropped)

    @property
    def as_of_ms(self) -> int | None:
        """The moment as of which everything is learned, in milliseconds since 1970."""
        return None if self.as_of is None else int(datetime.fromisoformat(self.as_of).timestamp() * 1000)

    @property
    def round_trip_cost(self) -> float:
        """What entering and leaving costs, as a fraction of notional."""
        return 2 * (self.fee_bps + self.slippage_bps) / 10_000
