"""The supervisor of what the model says: on which side its signals are, and how good they turn out to be."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

from msgspec import UNSET, UnsetType

from feature_store.candle import Timeframe
from inference.domain.bias import CANDLES_KEPT, BiasMode, BiasRules, SignalBias
from inference.domain.decision import Candidate
from inference.domain.policy import Policy
from inference.domain.signal import Direction
from inference.supervision.prediction_quality import (
    MaturedCandle,
    Opinions,
    PredictionQuality,
    matured,
    opinions_at,
    prediction_quality,
)
from inference.supervision.signal_bias import SignalCandle, signal_bias, signal_candle


class ModelSupervisor:
    """
    Watches on which side the signals are, and how often they were right.

    `bias` is the newest lean, `quality` what became of the newest opinions whose horizon has ended. A bias that begins,
    ends or changes sides is one event each, however long it lasts. Nothing is kept beyond the process: after a start
    the window fills again before anything is called a bias.
    """

    def __init__(
        self,
        rules: BiasRules,
        policy: Policy,
        *,
        timeframe: Timeframe,
        on_event: Callable[[str, Mapping[str, str]], None],
    ) -> None:
        self.rules = rules
        self.bias: SignalBias | None = None
        self.quality: PredictionQuality | None = None
        self._policy = policy
        self._on_event = on_event
        self._step_ms = timeframe.milliseconds
        self._candles: deque[SignalCandle] = deque(maxlen=CANDLES_KEPT)
        self._closes: dict[str, float] = {}
        self._open: list[Opinions] = []
        self._matured: deque[MaturedCandle] = deque(maxlen=CANDLES_KEPT)
        self._told: Direction | None = None

    @property
    def enforced(self) -> SignalBias | UnsetType:
        """The bias that a decision has to refuse; unset while there is none, and where it is only observed."""
        bias = self.bias
        return bias if bias is not None and bias.is_bias and self.rules.mode is BiasMode.ENFORCE else UNSET

    def watch(self, candidates: Sequence[Candidate], *, close_ms: int, horizon: int) -> None:
        """
        Take in what was scored of one candle, by a model that looks `horizon` candles ahead.

        A candle that is not newer than the last changes nothing.
        """
        if self._candles and close_ms <= self._candles[-1].close_ms:
            return
        candle = signal_candle(candidates, self._policy, close_ms=close_ms, earlier=self._closes)
        if candle is None:
            return
        self._candles.append(candle)
        closes = {one.signal.symbol: one.close for one in candidates}
        self._closes |= closes
        self._judge(closes, close_ms)
        if said := opinions_at(candidates, due_ms=close_ms + horizon * self._step_ms):
            self._open.append(said)
        self.quality = prediction_quality(self._matured, candle.model_version)
        self.bias = signal_bias(self._candles, self.rules)
        self._tell(candle)

    def _judge(self, closes: Mapping[str, float], close_ms: int) -> None:
        due = [one for one in self._open if one.due_ms == close_ms]
        # What was due at a candle that never came is not judged at another: that would be another horizon.
        self._open = [one for one in self._open if one.due_ms > close_ms]
        self._matured.extend(judged for one in due if (judged := matured(one, closes)) is not None)

    def _tell(self, candle: SignalCandle) -> None:
        bias = self.bias
        side = bias.side if bias is not None and bias.is_bias else None
        if side is self._told:
            return
        ended, self._told = self._told, side
        detail = {"model_version": candle.model_version, "mode": self.rules.mode.value}
        if bias is not None:
            detail |= {
                "share": f"{bias.share:.4f}",
                "limit": f"{bias.limit:.4f}",
                "usual": f"{bias.usual:.4f}",
                "candles": str(bias.candles),
            }
        if side is not None:
            self._on_event("model.bias_found", {"side": side.value, **detail})
        elif ended is not None:
            self._on_event("model.bias_ended", {"side": ended.value, **detail})
