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
from inference.supervision.quality_evidence import LIMIT, QualityEvidence
from inference.supervision.remembered import (
    BIAS_ENDED,
    BIAS_FOUND,
    MATURED,
    QUALITY_FOUND_POOR,
    QUALITY_RECOVERED,
    Remembered,
    matured_detail,
)
from inference.supervision.signal_bias import SignalCandle, signal_bias, signal_candle

OnEvent = Callable[[str, Mapping[str, str]], None]


class ModelSupervisor:
    """
    Watches on which side the signals are, and how often they were right.

    `bias` is the newest lean, `quality` what became of the newest opinions whose horizon has ended, `evidence` whether
    that shows them to be poor. A bias that begins, ends or changes sides is one event each, however long it lasts, and
    so is a model that is found poor or has recovered. After a start it goes on from what the journal remembers.
    """

    def __init__(
        self,
        rules: BiasRules,
        policy: Policy,
        *,
        timeframe: Timeframe,
        on_event: OnEvent,
        on_fact: OnEvent = lambda _kind, _detail: None,
        remembered: Remembered | None = None,
    ) -> None:
        """Begin to watch: `on_event` hears of what was found, `on_fact` of each candle that has matured."""
        self.rules = rules
        self.bias: SignalBias | None = None
        self.quality: PredictionQuality | None = None
        self._policy = policy
        self._on_event = on_event
        self._on_fact = on_fact
        self._step_ms = timeframe.milliseconds
        self._candles: deque[SignalCandle] = deque(maxlen=CANDLES_KEPT)
        self._closes: Mapping[str, float] = {}
        self._open: list[Opinions] = []
        self._matured: deque[MaturedCandle] = deque(maxlen=CANDLES_KEPT)
        self._evidence: dict[str, QualityEvidence] = {}
        self._told: Direction | None = None
        if remembered is not None:
            self._remember(remembered)

    @property
    def enforced(self) -> SignalBias | UnsetType:
        """The bias that a decision has to refuse; unset while there is none, and where it is only observed."""
        bias = self.bias
        return bias if bias is not None and bias.is_bias and self.rules.mode is BiasMode.ENFORCE else UNSET

    @property
    def evidence(self) -> QualityEvidence | None:
        """What independent outcomes say of the newest candle's model, None before any candle was scored."""
        return self._evidence_of(self._candles[-1].model_version) if self._candles else None

    @property
    def watched(self) -> str:
        """Which model scored the newest candle, by its name and digest; empty before any."""
        return self._candles[-1].model_version if self._candles else ""

    def follow(self, rules: BiasRules, policy: Policy) -> None:
        """Watch by these rules from the next candle on; what was counted stays."""
        self.rules, self._policy = rules, policy

    def hold_to(self, model_version: str, promised: float | None) -> None:
        """Hold a model, by its name and digest, to how often training says that it is right; None says nothing."""
        self._evidence[model_version] = self._evidence_of(model_version).held_to(promised)

    def watch(self, candidates: Sequence[Candidate], *, close_ms: int, horizon: int) -> None:
        """
        Take in what was scored of one candle, by a model that looks `horizon` candles ahead.

        A candle that is not newer than the last changes nothing.
        """
        candle = self._take_in(candidates, self._policy, close_ms)
        if candle is None:
            return
        self._judge(close_ms)
        self._open_opinions(candidates, close_ms, horizon)
        self._look(candle.model_version)
        self._tell(candle)

    def _take_in(self, candidates: Sequence[Candidate], policy: Policy, close_ms: int) -> SignalCandle | None:
        if self._candles and close_ms <= self._candles[-1].close_ms:
            return None
        candle = signal_candle(candidates, policy, close_ms=close_ms, earlier=self._closes)
        if candle is not None:
            self._candles.append(candle)
            # Prices are compared from one scored candle to the next: what lies between is known after any start.
            self._closes = {one.signal.symbol: one.close for one in candidates}
        return candle

    def _open_opinions(self, candidates: Sequence[Candidate], close_ms: int, horizon: int) -> None:
        # What was due at a candle that never came is not judged at another: that would be another horizon.
        self._open = [one for one in self._open if one.due_ms > close_ms]
        said = opinions_at(candidates, said_ms=close_ms, due_ms=close_ms + horizon * self._step_ms)
        if said is not None:
            self._open.append(said)

    def _look(self, model_version: str) -> None:
        self.quality = prediction_quality(self._matured, model_version)
        self.bias = signal_bias(self._candles, self.rules)

    def _judge(self, close_ms: int) -> None:
        for one in self._open:
            judged = matured(one, self._closes) if one.due_ms == close_ms else None
            if judged is not None:
                self._matured.append(judged)
                self._on_fact(MATURED, matured_detail(judged))
                self._weigh(judged)

    def _weigh(self, one: MaturedCandle) -> None:
        before = self._evidence_of(one.model_version)
        now = self._evidence[one.model_version] = before.after(one)
        if now.poor_by is not None and before.poor_by is None:
            self._on_event(QUALITY_FOUND_POOR, {"model_version": one.model_version, **_figures(now)})
        elif before.poor_by is not None and now.poor_by is None:
            detail = {"measure": before.poor_by.value, "outcomes": str(before.recovery.outcomes + 1)}
            self._on_event(QUALITY_RECOVERED, {"model_version": one.model_version, **detail})

    def _evidence_of(self, model_version: str) -> QualityEvidence:
        return self._evidence.get(model_version) or QualityEvidence()

    def _remember(self, past: Remembered) -> None:
        """Come to where a supervisor would be that had watched all along; nothing of it is an event again."""
        for one in past.decided:
            if self._take_in(one.candidates, one.policy, one.close_ms) is not None and one.horizon is not None:
                self._open_opinions(one.candidates, one.close_ms, one.horizon)
        self._matured.extend(past.matured)
        self._evidence.update(past.evidence)
        self._told = past.told
        if self._candles:
            self._look(self._candles[-1].model_version)

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
            self._on_event(BIAS_FOUND, {"side": side.value, **detail})
        elif ended is not None:
            self._on_event(BIAS_ENDED, {"side": ended.value, **detail})


def _figures(found: QualityEvidence) -> Mapping[str, str]:
    return {
        "measure": "" if found.poor_by is None else found.poor_by.value,
        "outcomes": str(found.outcomes),
        "right": f"{found.right / found.outcomes:.4f}",
        "brier": f"{found.brier / found.outcomes:.4f}",
        "base_brier": f"{found.base / found.outcomes:.4f}",
        "evidence": f"{found.evidence:.1f}",
        "limit": f"{LIMIT:.0f}",
        **({} if found.promised is None else {"promised": f"{found.promised:.4f}"}),
    }
