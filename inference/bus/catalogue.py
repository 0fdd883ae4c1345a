"""Which events there are, who says them and what they mean."""

from __future__ import annotations

from dataclasses import dataclass

FAMILIES: dict[str, str] = {
    "market": "feed",
    "signal": "decision",
    "trade": "execution",
    "risk": "risk",
    "health": "supervision",
    "policy": "policy",
    "audit": "supervision",
    "model": "models",
    "rl": "learning",
}
"""What says the events of a family, where the catalogue does not name another; of `rl` there are none yet."""


@dataclass(frozen=True, slots=True)
class EventKind:
    """
    One type of event. `fields` are those of its data, as far as they are always there.

    One that `follows_from` a journal entry of another type is made of it on its way to the bus; the others are journal
    entries themselves. One that `is_said` by nobody yet keeps its name: whoever subscribes to it hears nothing.
    """

    event_type: str
    meaning: str
    fields: tuple[str, ...] = ()
    follows_from: str = ""
    source: str = ""
    is_said: bool = True

    @property
    def said_by(self) -> str:
        """The part of the system that says it."""
        return self.source or FAMILIES.get(self.event_type.partition(".")[0], "worker")


_SIGNAL = ("symbol", "direction", "confidence", "expected_return", "consensus", "regime", "model", "candle_close_ms")
_DECIDED, _CLOSED = "signal.decided", "market.candles_closed"
CATALOGUE: tuple[EventKind, ...] = (
    EventKind(
        _CLOSED,
        "candles closed and were handed out: of which symbols, the worst lateness in ms of the venue's time",
        ("close_time_ms", "timeframe", "symbols", "late_ms"),
    ),
    EventKind(
        "market.kline",
        "the newest closed candle of each of them, as it came: one event for all symbols",
        ("close_time_ms", "timeframe", "candles"),
        follows_from=_CLOSED,
    ),
    EventKind(
        "market.tick",
        "the best prices that a closed candle was decided by: one event for all symbols, no stream of each change",
        ("quotes", "candle_close_ms"),
        follows_from=_DECIDED,
    ),
    EventKind(
        "market.orderbook",
        "depth of an order book; nobody says it yet: the worker looks at best prices alone, which market.tick has",
        is_said=False,
    ),
    EventKind(
        "market.candles_late",
        "candles that had closed were not there in time",
        ("close_time_ms", "timeframe", "symbols"),
        follows_from=_CLOSED,
    ),
    EventKind(
        "market.gap_filled",
        "candles that had been missed came with a later one: how many of each symbol",
        ("close_time_ms", "timeframe", "candles"),
        follows_from=_CLOSED,
    ),
    EventKind("market.candles_changed", "a candle behind what was handed out is another now", ("symbol", "found")),
    EventKind("market.features_rebuilt", "features were computed anew after that", ("symbol", "candles", "since")),
    EventKind("signal.features_used", "digests of what models read for a decision", ("candle_close_ms", "symbols")),
    EventKind(
        "signal.generated",
        "the ensemble's opinion of one symbol, with regime_probability and quality where they are told",
        _SIGNAL,
        follows_from=_DECIDED,
    ),
    EventKind(
        "signal.filtered",
        "whether it passed the decision chain, or by which code and numbers it did not",
        ("symbol", "passed", "code", "context", "candle_close_ms"),
        follows_from=_DECIDED,
    ),
    EventKind(
        "signal.ranked",
        "what passed, the best first: by expected net edge, or by worth, score and companions where ranking is by risk",
        ("candle_close_ms", "ranking"),
        follows_from=_DECIDED,
    ),
    EventKind(
        _DECIDED,
        "a closed candle was decided on; everything that was looked at is in the journal's entry",
        ("candle_close_ms", "trading_state", "candidates", "approved", "denied"),
    ),
    EventKind("signal.explained", "what the inputs of an approved entry did", ("trace_id", "symbol", "parts")),
    EventKind("trade.planned", "an approved entry became a trade; nothing is sent yet", ("plan",)),
    EventKind(
        "trade.created",
        "the same, under the name that subscribers of trades look for",
        ("trade_id", "symbol", "direction", "quantity", "stop_price", "target_price"),
        follows_from="trade.planned",
    ),
    EventKind("trade.order_intended", "an order is about to be sent", ("intent",)),
    EventKind("trade.order_reported", "the venue said something new of an order", ("report",)),
    EventKind("trade.order_refused", "the venue proved that it did not accept an order", ("client_order_id", "code")),
    EventKind("trade.order_found_absent", "the venue has no such order", ("client_order_id",)),
    EventKind("trade.filled", "one execution was booked", ("fill",)),
    EventKind(
        "trade.updated",
        "a position changed, by an execution or by what was found at the venue",
        ("symbol", "because"),
        follows_from="trade.filled",
    ),
    EventKind("trade.exit_requested", "a trade is to end now", ("trade_id", "reason")),
    EventKind("trade.exit_observed", "a close or a price moved a trade's stop, or ends it", ("trade_id", "seen")),
    EventKind("trade.closed", "a trade is flat and its money is counted", ("trade_id", "result")),
    EventKind("trade.funding_paid", "funding was paid or received"),
    EventKind("risk.account_marked", "equity, with the marks that drawdowns are measured from", ("equity",)),
    EventKind("risk.position_found_changed", "the venue holds another quantity than fills explain", ("trade_id",)),
    EventKind("risk.corrected", "the journal was made to agree with the venue"),
    EventKind(
        "risk.report_unexplained",
        "the stream told of a symbol that is not followed, or of an order of ours under another symbol; not believed",
        ("symbol", "ours", "client_order_id", "venue_order_id", "what", "why"),
    ),
    EventKind("risk.entry_denied", "an approved entry was not let out", ("symbol", "code", "reason")),
    EventKind("risk.entries_held", "entries are held back: by what, and because of what", ("what", "because")),
    EventKind("risk.entries_released", "they are let out again", ("what", "held_seconds")),
    EventKind(
        "risk.candidates_refused",
        "the account or the portfolio refused candidates, by a limit, a stop, a pause or a veto: with its numbers",
        ("code", "symbols", "context", "candle_close_ms"),
        follows_from=_DECIDED,
    ),
    EventKind("risk.limit_exceeded", "a loss reached what is warned of, or a limit", ("limit", "drawdown", "maximum")),
    EventKind("risk.breaker_opened", "the trading circuit breaker pauses entries", ("reason", "until_ms")),
    EventKind("risk.breaker_half_opened", "its pause is over: one entry is tried", ("reason", "until_ms")),
    EventKind("risk.breaker_closed", "entries are free again", ("reason", "until_ms")),
    EventKind("audit.not_reproduced", "a recorded candle, decided again, came out differently", ("seq", "because")),
    EventKind("risk.committee_resolved", "what the committee's votes come to", ("stance", "budget", "because")),
    EventKind("risk.committee_chartered", "a file says by which numbers the committee votes, and these", ("file",)),
    EventKind("risk.federation_heard", "which of the desk's workers are heard", ("heard", "expected")),
    EventKind("risk.emergency", "an emergency stop was latched", ("key", "evaluator", "reason", "actions", "at", "by")),
    EventKind("risk.emergency_action", "which trades it closes", ("key", "trades")),
    EventKind("risk.emergency_confirmed", "all that it asks for is done", ("key",)),
    EventKind("risk.emergency_reset", "a person ended the stops that stood, and why", ("stops", "reason")),
    EventKind("policy.loaded", "a worker follows this version of the policy", ("version", "fingerprint")),
    EventKind(
        "policy.updated",
        "another version takes effect; with `superseded_by`, it was followed by another before it could",
        ("version", "fingerprint", "author", "changes"),
    ),
    EventKind("policy.seed_ignored", "a seed that differs from the store is not followed"),
    EventKind("policy.store_failed", "the store cannot be read: entries are held"),
    EventKind("policy.store_recovered", "it can be read again"),
    EventKind(
        "policy.unfit_for_live",
        "with real money a guard has no number, or a rule is above what is allowed: entries are held",
        ("found", "fingerprint"),
    ),
    EventKind("policy.fit_for_live", "the policy is fit for real money again", ("fingerprint",)),
    EventKind("policy.exit_profile_followed", "new trades end by this exit profile", ("exit_profile", "rules")),
    EventKind("policy.exit_profile_refused", "it cannot be followed: entries are held", ("exit_profile", "reason")),
    EventKind("health.paper_account_begun", "a paper account was made anew: marks are its own from here on", ("file",)),
    EventKind("health.started", "a worker opened its journal", ("mode", "venue", "pid")),
    EventKind("health.restored", "the journal was put back from a backup", ("backup",)),
    EventKind("health.stopped", "it stopped as asked"),
    EventKind("health.halted", "nothing is entered any more until the next start", ("reason",)),
    EventKind("health.level_changed", "how well the worker is, in five levels, and why", ("level", "reasons")),
    EventKind("health.anchor_failed", "the journal's anchor outside the home cannot be written", ("file", "reason")),
    EventKind("health.anchor_recovered", "it can be written again, and has been", ("file", "seq")),
    EventKind(
        "health.anchor_replaced",
        "the journal was put back, or somebody says so: what the anchor outside vouched for is set aside",
        ("file", "old_seq", "old_digest", "new_seq", "new_digest"),
    ),
    EventKind("health.lease_taken", "the account's lease was taken"),
    EventKind("health.lease_lost", "another worker has it now"),
    EventKind("health.lease_not_renewed", "where it is kept did not answer"),
    EventKind("health.lease_not_released", "it could not be given back"),
    EventKind("health.clock_off", "the venue's clock, or ours, was found to be wrong", ("error_ms", "alarm_ms")),
    EventKind("health.rate_paused", "the venue wants to hear nothing for a while"),
    EventKind("health.circuit_opened", "an endpoint of the venue is asked by one request at a time"),
    EventKind("health.circuit_closed", "it is well again"),
    EventKind("health.bus_late", "what is journaled has waited too long for the bus", ("reason",), source="bus"),
    EventKind("health.bus_recovered", "the bus has taken all of it", ("late_seconds",), source="bus"),
    EventKind(
        "health.event_left_out",
        "a journal entry that the bus cannot carry: of which type, and why; the journal has it",
        ("type", "left_out"),
        follows_from="any",
        source="bus",
    ),
    EventKind("model.loaded", "a model trades from now on", ("version", "digest")),
    EventKind("model.unloaded", "no model trades any more", ("version", "reason")),
    EventKind("model.refused", "a bundle was refused"),
    EventKind("model.absent", "the alias names nothing"),
    EventKind("model.approved", "a person's word on a version"),
    EventKind("model.verdict", "what the gates said of a version"),
    EventKind("model.rolled_back", "the version before trades again"),
    EventKind(
        "model.retraining_changed",
        "how a retraining job stands: queued, running, resumed, succeeded, failed, or withdrawn before it began",
        ("job_id", "type", "status", "trigger", "told_at"),
        source="flows",
    ),
    EventKind(
        "model.drift_checked",
        "what a drift check found, with its figures: PSI, KL and others of each column, and evidence of degradation",
        ("version", "role", "verdict", "hours", "window_ended_at"),
        source="flows",
    ),
    EventKind("model.notice_unreadable", "what a flow left for the journal cannot be read"),
    EventKind("model.notice_not_removed", "what a flow left was journaled and could not be taken away"),
    EventKind("model.registry_available", "the registry answers again"),
    EventKind("model.registry_unavailable", "the registry does not answer"),
    EventKind("model.bias_found", "signals lean to one side"),
    EventKind("model.bias_ended", "they do not any more"),
    EventKind("model.opinions_matured", "what became of opinions at the end of their horizon"),
    EventKind("model.quality_found_poor", "live opinions are poor"),
    EventKind("model.quality_recovered", "they are good again"),
    EventKind("model.fallback", "what is done about a model whose live opinions are poor"),
    EventKind("model.fell_back", "a model was left for its live opinions", ("model", "to")),
    EventKind("model.not_set_aside", "a model could not be set aside in this home"),
    EventKind("rl.observation", "the state that a learner saw; nobody says it yet: no learner trades", is_said=False),
    EventKind("rl.action", "what it did; nobody says it yet", is_said=False),
    EventKind("rl.reward", "what that brought; nobody says it yet", is_said=False),
)
KINDS: dict[str, EventKind] = {one.event_type: one for one in CATALOGUE}


def said_by(event_type: str) -> str:
    """Return what says events of a type; of one that the catalogue does not know, what says those of its family."""
    kind = KINDS.get(event_type)
    if kind is not None:
        return kind.said_by
    return FAMILIES.get(event_type.partition(".")[0], "worker")
