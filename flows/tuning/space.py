"""What tuning may vary: members and who of them votes, what they read and learn, and where trades end."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from msgspec.structs import replace

from feature_store.errors import BadInputError
from feature_store.features.definition import FEATURES, MODEL_INPUTS
from flows.training.config import BarrierSizes, NetConfig, TrainingConfig, TreeConfig
from flows.training.members.catalogue import checked, parse_members

TREES = ("xgboost", "lightgbm")
"""Members that are quick enough to be fitted some hundred times; others are tried where they are named."""
NETS = ("nhits", "patchtst", "dlinear")
"""Members whose training can be made longer or shorter, and makes a trial much longer."""

_WORD = re.compile(r"[a-z_0-9]+")

Label = Literal["forward", "net", "barrier"]
PARTS = ("members", "features", "labels", "exits", "ensemble", "thresholds", "choice", "weights")

# Where the label `barrier` ends trades. Each is learned from candles read anew, so there are only a few.
PROFILES: dict[str, BarrierSizes] = {
    "tight": BarrierSizes(stop_atr_multiple=1.0, target_atr_multiple=1.5, holding_candles=12),
    "even": BarrierSizes(stop_atr_multiple=2.0, target_atr_multiple=2.0, holding_candles=12),
    "runner": BarrierSizes(stop_atr_multiple=1.5, target_atr_multiple=4.0, holding_candles=24),
}
# Where trades themselves may end: wide enough for a scalp and for half a day, and nowhere near nothing or for ever.
STOPS, TARGETS = (0.5, 8.0), (0.5, 12.0)
"""Least and most multiples of the average true range."""
_HOLDING = (0.25, 4.0)
# The least confidence that a threshold may ask for, and the most, in hundredths. The least stays below what hardly any
# candle is believed with: a choice that never trades loses nothing, and would look better than one that learned little.
_LEAST_CONFIDENCE, _MOST_CONFIDENCE = (51, 62), 75
_LEAST_DRAW = 1e-3


class Asks(Protocol):
    """What asks for a value by name: a trial of Optuna, or a test."""

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """Return a whole number of a range."""
        ...

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Return a number of a range."""
        ...

    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str:
        """Return one of some words."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """
    Which parts of a training are searched.

    Attributes:
        parts: Some of `PARTS`.
        labels: What may be learned, where `labels` is searched.
        members: Who is trained in each trial; None are the trees among the members of the training.

    Raises:
        BadInputError: A part or a member does not exist, or none is named.
    """

    parts: tuple[str, ...] = ("members", "features", "ensemble")
    labels: tuple[Label, ...] = ("forward", "barrier")
    members: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse parts and members that do not exist."""
        unknown = [part for part in self.parts if part not in PARTS]
        if unknown or not self.parts:
            raise BadInputError(f"Tuning searches some of {', '.join(PARTS)}, was asked for {', '.join(self.parts)!r}")
        if self.members is not None:
            checked(self.members)

    @property
    def chooses_members(self) -> bool:
        """Whether who votes is part of what is found, rather than left to each training."""
        return self.members is not None or bool({"choice", "weights"} & set(self.parts))

    def trained(self, base: TrainingConfig) -> tuple[str, ...]:
        """
        Return the members that trials are made of.

        Raises:
            BadInputError: None is named, and the training has no tree.
        """
        members = self.members or tuple(name for name in base.members if name in TREES)
        if not members:
            raise BadInputError(
                f"Tuning varies {' and '.join(TREES)}, and none of them is a member; name those to try with --members"
            )
        return members


def parse_space(text: str, members: str | None = None) -> Space:
    """
    Read a comma list of parts, and one of members.

    Raises:
        BadInputError: A part or a member does not exist, or none is named.
    """
    parts = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    return Space(parts=parts, members=None if members is None else parse_members(members))


def families(input_names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """
    Return the model inputs by the family of the first feature in their formula, `price` where it names none.

    Inputs of one's own are not searched.
    """
    known = {feature.name: str(feature.family) for feature in FEATURES}
    found: dict[str, list[str]] = {}
    for one in MODEL_INPUTS:
        if one.name in input_names:
            read = [known[word] for word in _WORD.findall(one.formula) if word in known]
            found.setdefault(read[0] if read else "price", []).append(one.name)
    return {family: tuple(names) for family, names in sorted(found.items())}


def chosen(asks: Asks, base: TrainingConfig, space: Space, input_names: Sequence[str]) -> TrainingConfig:
    """
    Return a training as a trial chooses it; everything that is not searched stays as it is in `base`.

    Raises:
        BadInputError: No member is named, and the training has no tree.
    """
    config = replace(base, members=space.trained(base), compared=(), heads=())
    if "choice" in space.parts:
        config = replace(config, members=_voting(asks, config.members))
    if "members" in space.parts:
        trees = {name: _tree(asks, name, getattr(base, name)) for name in TREES if name in config.members}
        nets = {name: _net(asks, name, getattr(base, name)) for name in NETS if name in config.members}
        config = replace(config, **trees, **nets)
    if "features" in space.parts:
        config = replace(config, dropped_inputs=_dropped(asks, input_names))
    if "labels" in space.parts:
        config = _learned(asks, config, space)
    if "ensemble" in space.parts:
        config = replace(
            config,
            market_share_removed=asks.suggest_float("market_share_removed", 0.0, 1.0),
            min_threshold_trades=asks.suggest_int("min_threshold_trades", 10, 120, log=True),
        )
        if "weights" not in space.parts:
            config = replace(config, weight_shrinkage=asks.suggest_float("weight_shrinkage", 0.0, 1.0))
    if "thresholds" in space.parts:
        config = replace(config, threshold_bounds=_confidences(asks))
    if "weights" in space.parts:
        config = replace(config, weighting="fixed", member_shares=_shares(asks, config.members))
    if "exits" in space.parts:
        config = replace(config, traded_exits=_exits(asks, config.horizon))
    return config


def applied(base: TrainingConfig, tuned: TrainingConfig, *, members: bool = False) -> TrainingConfig:
    """
    Return a training with what tuning chose; members that tuning leaves out are trained as before.

    With `members`, those vote that the tuning chose. Weights that it fixed are taken where they are of just the
    members that vote: of others they say nothing.
    """
    voting = tuned.members if members else base.members
    fixed = tuned.member_shares is not None and set(tuned.member_shares) == set(voting)
    return replace(
        base,
        members=voting,
        xgboost=tuned.xgboost,
        lightgbm=tuned.lightgbm,
        # A net that was not tried keeps the length that the size of the training gives it.
        **{name: getattr(tuned, name) for name in NETS if name in tuned.members},
        dropped_inputs=tuned.dropped_inputs,
        label=tuned.label,
        barriers=tuned.barriers,
        market_share_removed=tuned.market_share_removed,
        weight_shrinkage=tuned.weight_shrinkage,
        min_threshold_trades=tuned.min_threshold_trades,
        threshold_bounds=tuned.threshold_bounds,
        weighting="fixed" if fixed else base.weighting,
        member_shares=tuned.member_shares if fixed else None,
        traded_exits=tuned.traded_exits,
    )


def _tree(asks: Asks, name: str, base: TreeConfig) -> TreeConfig:
    return replace(
        base,
        rounds=asks.suggest_int(f"{name}/rounds", 40, 500, log=True),
        depth=asks.suggest_int(f"{name}/depth", 2, 6),
        learning_rate=asks.suggest_float(f"{name}/learning_rate", 0.01, 0.1, log=True),
        min_leaf_rows=asks.suggest_int(f"{name}/min_leaf_rows", 50, 3000, log=True),
        row_fraction=asks.suggest_float(f"{name}/row_fraction", 0.4, 1.0),
        column_fraction=asks.suggest_float(f"{name}/column_fraction", 0.2, 1.0),
        l2=asks.suggest_float(f"{name}/l2", 1.0, 100.0, log=True),
    )


def _net(asks: Asks, name: str, base: NetConfig) -> NetConfig:
    # Around the length of the size that was chosen, so that a trial of size tiny stays tiny.
    return replace(
        base,
        max_steps=asks.suggest_int(f"{name}/max_steps", max(base.max_steps // 2, 1), 2 * base.max_steps, log=True),
        learning_rate=asks.suggest_float(f"{name}/learning_rate", 1e-4, 3e-3, log=True),
        dropout=asks.suggest_float(f"{name}/dropout", 0.0, 0.5),
        weight_decay=asks.suggest_float(f"{name}/weight_decay", 1e-4, 1e-1, log=True),
    )


def _voting(asks: Asks, members: Sequence[str]) -> tuple[str, ...]:
    chosen = tuple(name for name in members if asks.suggest_categorical(f"votes/{name}", ("yes", "no")) == "yes")
    # An ensemble of nobody is none; the first stays.
    return chosen or (members[0],)


def _shares(asks: Asks, members: Sequence[str]) -> dict[str, float]:
    """Return shares that sum to one, every such set as likely as any other: exponential draws over their sum."""
    drawn = {name: -math.log(asks.suggest_float(f"weight/{name}", _LEAST_DRAW, 1 - _LEAST_DRAW)) for name in members}
    total = sum(drawn.values())
    return {name: value / total for name, value in drawn.items()}


def _confidences(asks: Asks) -> tuple[float, float]:
    least = asks.suggest_int("thresholds/least", *_LEAST_CONFIDENCE)
    # By how much the most lies above the least: then every draw is a stretch that is not empty.
    width = asks.suggest_int("thresholds/width", 0, _MOST_CONFIDENCE - _LEAST_CONFIDENCE[0])
    return least / 100, min(least + width, _MOST_CONFIDENCE) / 100


def _exits(asks: Asks, horizon: int) -> BarrierSizes:
    shortest, longest = (max(round(horizon * share), 1) for share in _HOLDING)
    # Two digits: finer ones would only look as if more were known.
    return BarrierSizes(
        stop_atr_multiple=round(asks.suggest_float("exits/stop_atr_multiple", *STOPS, log=True), 2),
        target_atr_multiple=round(asks.suggest_float("exits/target_atr_multiple", *TARGETS, log=True), 2),
        holding_candles=asks.suggest_int("exits/max_holding_candles", shortest, longest, log=True),
    )


def _dropped(asks: Asks, input_names: Sequence[str]) -> tuple[str, ...]:
    groups = families(input_names)
    out = [family for family in groups if asks.suggest_categorical(f"read/{family}", ("yes", "no")) == "no"]
    if len(out) == len(groups):
        # Nothing to read is no strategy; the first family stays.
        out = out[1:]
    return tuple(name for family in out for name in groups[family])


def _learned(asks: Asks, config: TrainingConfig, space: Space) -> TrainingConfig:
    label = space.labels[0] if len(space.labels) == 1 else asks.suggest_categorical("label", space.labels)
    barriers = None
    if label == "barrier":
        barriers = PROFILES[asks.suggest_categorical("label/profile", tuple(PROFILES))]
    return replace(config, label=label, barriers=barriers)
