"""What time it is at the venue, and how fast its clock runs against ours."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

# A sample further from the estimate than this means that the venue's clock was moved, not that we drifted.
_JUMP_WALL_SECONDS = 1.0
_WINDOW = 32
_MIN_BASELINE_SECONDS = 0.05
# Of a clock that tells whole seconds the rate takes longer to learn.
_MIN_DOUBTFUL_BASELINE_SECONDS = 1.0
# A clock that may run fast is believed to run at wall speed while it is this close to it.
_WALL_RATE_TOLERANCE = 0.01


@dataclass(frozen=True, slots=True)
class TimeSample:
    """One answer of the venue's clock: what it said, and our monotonic time when the question went and came back."""

    sent: float
    received: float
    venue_ms: int
    # By how much the venue's word may be off either way, where it tells whole seconds only.
    doubt_ms: float = 0.0

    @property
    def middle(self) -> float:
        """Our best guess of when the venue read its clock."""
        return (self.sent + self.received) / 2

    @property
    def round_trip(self) -> float:
        """Seconds between question and answer."""
        return self.received - self.sent


class VenueClock:
    """
    The venue's time from our monotonic time; pure, because the monotonic time is an argument.

    With `accelerated` the rate is estimated too, as the sandbox's clock runs faster than the wall; otherwise it is one.
    """

    def __init__(self, *, accelerated: bool) -> None:
        self._accelerated = accelerated
        self._samples: deque[TimeSample] = deque(maxlen=_WINDOW)
        self._anchor = 0.0
        self._anchor_ms = 0.0
        self._rate = 1.0
        self._rate_doubt = 0.0
        self._latest_ms = 0
        self.jumps = 0
        # By how much of our time the newest answer contradicted what was believed, beyond what its slowness explains.
        self.error_ms = 0.0

    @property
    def is_set(self) -> bool:
        """Whether there was a sample yet."""
        return bool(self._samples)

    @property
    def is_settled(self) -> bool:
        """Whether both time and rate are known."""
        if not self._samples:
            return False
        baseline = self._samples[-1].middle - self._samples[0].middle
        least = _MIN_BASELINE_SECONDS if not self._samples[-1].doubt_ms else _MIN_DOUBTFUL_BASELINE_SECONDS
        return not self._accelerated or baseline >= least

    @property
    def rate(self) -> float:
        """Seconds of the venue per second of ours."""
        return self._rate

    def now_ms(self, monotonic: float) -> int:
        """Return the venue's time; never earlier than what was returned before, unless the clock was moved."""
        if not self._samples:
            raise ValueError("The venue's clock is not known yet; add a sample first")
        estimate = int(self._anchor_ms + (monotonic - self._anchor) * 1000 * self._rate)
        self._latest_ms = max(self._latest_ms, estimate)
        return self._latest_ms

    def wall_seconds(self, venue_ms: float) -> float:
        """Return how long a stretch of the venue's time lasts on our clock."""
        return venue_ms / 1000 / self._rate

    def add(self, sample: TimeSample, *, afresh: bool = False) -> bool:
        """
        Learn from one answer; return True where the venue's clock turned out to have been moved.

        `afresh` says that the venue has refused our time: whatever was believed until now is wrong.
        """
        self.error_ms = self._error_seconds(sample) * 1000
        jumped = bool(self._samples) and (afresh or self._has_jumped(sample))
        if jumped:
            self._samples.clear()
            self._latest_ms = 0
            self.jumps += 1
        self._samples.append(sample)
        self._estimate()
        return jumped

    def _has_jumped(self, sample: TimeSample) -> bool:
        if not self.is_settled:
            return sample.venue_ms < self._samples[-1].venue_ms
        return self._error_seconds(sample) > _JUMP_WALL_SECONDS

    def _error_seconds(self, sample: TimeSample) -> float:
        if not self.is_settled:
            return 0.0
        expected = self._anchor_ms + (sample.middle - self._anchor) * 1000 * self._rate
        error_seconds = abs(sample.venue_ms - expected) / 1000 / self._rate
        # A slow answer is an uncertain one, and a rate learned from slow answers grows wrong with time.
        doubt = sample.round_trip + (sample.middle - self._anchor) * self._rate_doubt
        doubt += 2 * sample.doubt_ms / 1000 / self._rate
        return max(0.0, error_seconds - doubt)

    def _estimate(self) -> None:
        first, last = self._samples[0], self._samples[-1]
        baseline = last.middle - first.middle
        if self._accelerated and baseline >= _MIN_BASELINE_SECONDS:
            rate = (last.venue_ms - first.venue_ms) / 1000 / baseline
            told = (first.doubt_ms + last.doubt_ms) / 1000
            self._rate_doubt = (first.round_trip + last.round_trip + told) / baseline
            # What slow answers cannot tell from the wall's speed is taken for it.
            is_wall = abs(rate - 1) < max(_WALL_RATE_TOLERANCE, self._rate_doubt)
            self._rate = 1.0 if is_wall else max(rate, 0.01)
        # The quickest of the recent answers is the most exact one.
        best = min(list(self._samples)[-8:], key=lambda sample: sample.round_trip)
        self._anchor, self._anchor_ms = best.middle, float(best.venue_ms)
