"""What a tuning found, as a file of the home that later trainings take."""

from __future__ import annotations

import math
import os
from pathlib import Path

import msgspec

from feature_store.errors import BadInputError
from flows.settings import FlowSettings
from flows.training.calibrate import thresholds_within
from flows.training.config import BarrierSizes, TrainingConfig
from flows.training.dataset import Dataset, FrameSet
from flows.training.members.catalogue import checked
from flows.training.splits import plan_splits
from flows.wording import moment
from inference.models.manifest import TimeWindow

_LONGEST_HOLDING = 100_000


class Tuned(msgspec.Struct, frozen=True, kw_only=True):
    """
    The best choice of a study.

    Attributes:
        study: Its name.
        trials: How many choices were tried until now, those that were given up early among them.
        number: Which of them this is.
        net_per_slot_bps: What it earned, the mean over the folds; `standard_net_per_slot_bps` is what the settings
            earned that the study began from.
        venue: Whose candles it looked at.
        looked_at: Which, from the first of its runs to the last.
        config: The training it chose; its timeframe is that of the candles.
        takes_members: Whether who votes was searched or named, so that a training takes the members as well.
        policy: File with the policy that it traded by, None where exits were not searched. A worker and a backtest take
            it as --policy, and nothing takes it by itself.
    """

    study: str
    trials: int
    number: int
    net_per_slot_bps: float
    standard_net_per_slot_bps: float
    venue: str
    looked_at: TimeWindow
    config: TrainingConfig
    takes_members: bool = False
    policy: str | None = None


def tuning_folder(settings: FlowSettings) -> Path:
    """Return the folder of the home in which studies and what they found are kept."""
    return settings.home / "tuning"


def policy_path(settings: FlowSettings, study: str) -> Path:
    """Return the file in which the policy that a study found is kept."""
    return tuning_folder(settings) / f"{study}.toml"


def keep(settings: FlowSettings, tuned: Tuned, policy: str | None = None) -> Path:
    """Write what a study found, and the text of its policy before it, each whole or not at all; return the file."""
    folder = tuning_folder(settings)
    folder.mkdir(parents=True, exist_ok=True)
    if policy is not None:
        _write(policy_path(settings, tuned.study), policy.encode())
    path = folder / f"{tuned.study}.json"
    _write(path, msgspec.json.format(msgspec.json.encode(tuned), indent=2))
    return path


def _write(path: Path, content: bytes) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_bytes(content)
    part.replace(path)


def read_tuned(settings: FlowSettings, study: str) -> Tuned:
    """
    Return what a study found.

    Raises:
        BadInputError: No such study was finished in this home, or its file is damaged, of another version, or says what
            no tuning finds.
    """
    folder = tuning_folder(settings)
    known = sorted(path.stem for path in folder.glob("*.json"))
    if study not in known:
        there = f"there are {', '.join(known)}" if known else "there is none yet"
        raise BadInputError(f"No tuning named {study!r} was finished in {folder}: {there}; run 'qtctl tune' first")
    try:
        tuned = msgspec.json.decode((folder / f"{study}.json").read_bytes(), type=Tuned)
        _require_sound(tuned)
    except (OSError, msgspec.DecodeError, BadInputError) as error:
        raise BadInputError(
            f"What tuning {study!r} found cannot be used ({error}): run 'qtctl tune --study {study}' again"
        ) from error
    return tuned


def tuned_for(settings: FlowSettings) -> Tuned | None:
    """
    Return what the study found that the settings name, None where they name none.

    Raises:
        BadInputError: It found nothing that can be used, or searched another market than the settings train on.
    """
    if settings.tuned is None:
        return None
    tuned = read_tuned(settings, settings.tuned)
    searched, asked = (tuned.venue, tuned.config.timeframe), (settings.venue, settings.timeframe)
    if searched != asked:
        raise BadInputError(
            f"Tuning {tuned.study} searched {' '.join(searched)} candles, and this training learns from "
            f"{' '.join(asked)}: what is best in one market says nothing of another; choose a tuning of that market, "
            f"or begin one with 'qtctl tune --study NAME --venue {settings.venue} --timeframe {settings.timeframe}'"
        )
    return tuned


def require_unseen(config: TrainingConfig, frames: FrameSet, days: int) -> None:
    """
    Check that a training's tuning looked at none of the candles that weigh, calibrate and judge it.

    Args:
        config: Of the training.
        frames: What it is trained and judged on.
        days: How many were asked for.

    Raises:
        BadInputError: It looked at some: what it chose fits them, by skill or chance, and they can tell neither.
    """
    seen = config.tuning_looked_at
    if seen is None:
        return
    dataset = Dataset(frames, horizon=config.horizon, window=config.window)
    fit = plan_splits(dataset.start_ms, dataset.end_ms, config, timeframe_ms=dataset.timeframe_ms).fit
    if seen.end_ms > fit.end_ms:
        raise BadInputError(
            f"Tuning {config.tuning_study} looked at candles up to {moment(seen.end_ms)} UTC, and those after "
            f"{moment(fit.end_ms)} UTC weigh and judge this training: what fits them by chance would look like skill. "
            f"Search in a new study over as many days (qtctl tune --study NAME --days {days}), or train on fewer days, "
            "or once there are newer candles"
        )


def _require_sound(tuned: Tuned) -> None:
    """Refuse what a search cannot have found, such as a file that was changed by hand."""
    config = tuned.config
    if tuned.trials < 1:
        raise BadInputError(f"trials must be at least 1, was {tuned.trials}")
    checked(config.members)
    thresholds_within(config.threshold_bounds)
    for name in ("barriers", "traded_exits"):
        sizes: BarrierSizes | None = getattr(config, name)
        if sizes is not None:
            multiples = (sizes.stop_atr_multiple, sizes.target_atr_multiple)
            if not all(math.isfinite(one) and one > 0 for one in multiples):
                raise BadInputError(f"{name} needs multiples that are positive and finite, was {multiples}")
            if not 1 <= sizes.holding_candles <= _LONGEST_HOLDING:
                raise BadInputError(f"{name} holds 1 to {_LONGEST_HOLDING:,} candles, was {sizes.holding_candles}")
    if config.member_shares is not None:
        checked(tuple(config.member_shares))
        shares = config.member_shares.values()
        if not all(0 <= one <= 1 for one in shares) or abs(sum(shares) - 1) > 1e-6:
            raise BadInputError(f"member_shares must lie in [0, 1] and sum to one, was {config.member_shares}")
