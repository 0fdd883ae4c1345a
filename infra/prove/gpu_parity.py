"""The members that a GPU can train, trained on it and on the CPU: how far apart their answers are."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from feature_store.clock import monotonic
from flows.training.config import TrainingConfig
from flows.training.dataset import Dataset, Floats, Rows
from flows.training.device import Device, check_device
from flows.training.members.catalogue import names, spec
from flows.training.pack import export_member
from flows.training.splits import plan_splits
from inference.models.market_move import without_market
from infra.prove.proof import Proof, Size
from infra.prove.small_candidate import config_of, market

TOLERANCE = 0.2
"""
How far apart the answers of two devices may be, as a share of their spread.

Every step is rounded otherwise and dropout draws other numbers, so that two devices are as two seeds: what has to agree
is what was learned. How far two seeds of the CPU are apart is printed beside.
"""

LOSS_TOLERANCE = 0.005
"""How much larger the validation loss of the GPU may be, as a share of that of expecting nothing."""

BAR = (
    f"answers within {TOLERANCE:g} of their spread or of what two seeds are apart, validation loss at most "
    f"{LOSS_TOLERANCE:g} larger, exports in parity"
)
NOTHING = "no GPU here: nothing was shown"

_SCALES = {Size.FULL: (10, 30), Size.CI: (4, 10)}
_SEED = 7


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What a member answered on the validation rows, and what fitting it took."""

    predicted: Floats
    loss: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Compared:
    """One member on both devices."""

    name: str
    apart: float
    seeds_apart: float
    loss_more: float
    cpu_s: float
    gpu_s: float

    @property
    def holds(self) -> bool:
        """Whether the two have learned the same."""
        near = math.isfinite(self.apart) and self.apart <= max(TOLERANCE, self.seeds_apart)
        return bool(near and self.loss_more <= LOSS_TOLERANCE)

    def line(self) -> str:
        """Say it to a person."""
        return (
            f"{self.name}: {self.apart:.3g} of the spread apart (two seeds of the CPU {self.seeds_apart:.3g}), "
            f"validation loss {self.loss_more:+.4f}, {self.cpu_s:.1f} s on the CPU, {self.gpu_s:.1f} s on the GPU"
        )


def prove(size: Size) -> Proof:
    """Train each such member on both; without a GPU say so, and claim nothing."""
    device = gpu_name()
    if device is None:
        return nothing_shown()
    symbols, days = _SCALES[size]
    frames = market(symbols, days, _SEED)
    config = config_of("full" if size is Size.FULL else "quick", _SEED)
    dataset = Dataset(frames, horizon=config.horizon, window=config.window)
    splits = plan_splits(dataset.start_ms, dataset.end_ms, config, timeframe_ms=dataset.timeframe_ms)
    fit, validation = dataset.learned_rows(splits), dataset.rows(splits.validation, splits, stride=3)

    def answer(name: str, where: Device, seed: int) -> Answers:
        return trained(name, dataset, fit, validation, replace(config, device=where, seed=seed))

    found = [compare(name, answer) for name in gpu_members()]
    return judged(found, device, f"{symbols} symbols, {days} days, size {'full' if size is Size.FULL else 'quick'}")


def gpu_name() -> str | None:
    """Return the GPU that training would take, None where there is none."""
    import torch  # noqa: PLC0415 - seconds, and most proofs need none of it

    return str(torch.cuda.get_device_name(0)) if torch.cuda.is_available() else None


def nothing_shown() -> Proof:
    """Return what can be said without a GPU."""
    return Proof(
        name="gpu-parity",
        figure=NOTHING,
        bar=f"where there is a GPU: {BAR}",
        holds=True,
        shows=False,
        details=(f"members that would be trained on both: {', '.join(gpu_members())}",),
    )


def gpu_members() -> tuple[str, ...]:
    """Return the members that train on a GPU where they are told to, those that are only compared with among them."""
    return tuple(name for name in names() if spec(name).on_gpu)


def trained(name: str, dataset: Dataset, fit: Rows, validation: Rows, config: TrainingConfig) -> Answers:
    """Fit a member, hold its export against it, and ask it for the validation rows."""
    check_device(config.device)
    began = monotonic()
    fitted = spec(name).fit(dataset, fit, config, lambda _step, _share: None)
    seconds = monotonic() - began
    predicted = np.concatenate([fitted.predict(dataset, part) for part in dataset.batches(validation)])
    with tempfile.TemporaryDirectory(prefix="qt-prove-gpu-") as folder:
        export_member(
            fitted, dataset, validation.take(np.arange(min(config.parity_rows, len(validation)))), Path(folder)
        )
    share = config.market_share_removed
    outcome = without_market(validation.label, validation.open_time_ms, share)
    error = outcome - without_market(predicted, validation.open_time_ms, share)
    return Answers(predicted, float((error**2).mean() / (outcome**2).mean()), seconds)


def compare(name: str, answer: Callable[[str, Device, int], Answers]) -> Compared:
    """Hold a member of the GPU, and one of the CPU with another seed, against that of the CPU."""
    here, there, other = answer(name, "cpu", _SEED), answer(name, "gpu", _SEED), answer(name, "cpu", _SEED + 1)
    return Compared(
        name=name,
        apart=apart(here.predicted, there.predicted),
        seeds_apart=apart(here.predicted, other.predicted),
        loss_more=there.loss - here.loss,
        cpu_s=here.seconds,
        gpu_s=there.seconds,
    )


def apart(first: Floats, second: Floats) -> float:
    """Return the root mean square of the difference, in standard deviations of the first; infinite where undefined."""
    spread = float(first.std())
    if not spread > 0 or not np.isfinite(second).all():
        return float("inf")
    return float(np.sqrt(((first - second) ** 2).mean())) / spread


def judged(found: list[Compared], device: str, extent: str) -> Proof:
    """Return the figure of all members."""
    worst = max(one.apart for one in found)
    more = max(one.loss_more for one in found)
    return Proof(
        name="gpu-parity",
        figure=f"{len(found)} members on {device}: at most {worst:.3g} of their spread apart, loss at most {more:+.4f}",
        bar=BAR,
        holds=all(one.holds for one in found),
        details=(extent, *(one.line() for one in found)),
    )
