"""What an entry of the journal becomes on the bus, and that the catalogue knows all of it."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

import pytest

from inference.bus.catalogue import CATALOGUE, FAMILIES, KINDS, said_by
from inference.bus.envelope import checked_patterns
from inference.bus.projection import events_of
from inference.decision import decide
from inference.domain.decision import Denied, DenyCode
from inference.domain.events import AccountMarked, CandlesDecided, FillBooked, Noted, TradePlanned
from inference.domain.order import Fill, Side
from inference.domain.policy import EntryStyle, Policy
from inference.execution.planning import trade_plan
from inference.journal import codec
from inference.journal.codec import Entry, chained
from tests.worker_values import make_approved, make_candidate, make_snapshot

ROOT = Path(__file__).resolve().parents[2]
BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"
PLAN = trade_plan(
    make_approved(), candle_close_ms=0, now_ms=0, style=EntryStyle.MARKET, patience_ms=0, arrival_price=None
)
FILL = Fill(
    fill_id="1",
    client_order_id="c",
    venue_order_id="v",
    symbol=BTC,
    side=Side.BUY,
    quantity=Decimal(1),
    price=Decimal(2),
    fee=Decimal(0),
    is_maker=False,
    event_time_ms=1,
)
# Whose refusal a code is: that of the account or of all positions together, or that of one signal, symbol or size.
OF_ALL = {
    *("EMERGENCY_STOP", "RISK_INPUT_MISSING", "TRADING_STATE", "BREAKER_OPEN"),
    *("DAILY_DRAWDOWN", "WEEKLY_DRAWDOWN", "PEAK_DRAWDOWN", "VETO_DRAWDOWN"),
    *("OUTSIDE_TRADING_WINDOW", "GLOBAL_COOLDOWN", "ENTRY_COUNT", "MAX_POSITIONS"),
    *("EXPOSURE_ABOVE_MAXIMUM", "HEAT_ABOVE_MAXIMUM", "CONCENTRATION_ABOVE_MAXIMUM", "CORRELATED_ABOVE_MAXIMUM"),
    *("BETA_ABOVE_MAXIMUM", "VETO_CORRELATION", "COMMITTEE_VETO", "COMMITTEE_CAP"),
}
OF_ONE = {
    *(
        "NO_QUOTE",
        "SIGNAL_QUALITY",
        "STALE_DATA",
        "FEATURES_INCOMPLETE",
        "CONFIDENCE_BELOW_THRESHOLD",
        "EDGE_BELOW_COSTS",
    ),
    *("SIGNALS_BIASED", "POSITION_OPEN", "SYMBOL_NOT_ALLOWED", "COOLDOWN", "LOSS_COOLDOWN", "SYMBOL_ENTRY_COUNT"),
    *("STOP_UNUSABLE", "LIQUIDATION_TOO_NEAR", "VETO_CONFIDENCE", "VETO_VOLATILITY", "VETO_SIZE"),
    *("NO_EDGE_TO_BET", "QUANTITY_BELOW_STEP", "NOTIONAL_BELOW_MINIMUM", "NOTIONAL_ABOVE_MAXIMUM"),
}
MARK = AccountMarked(equity=Decimal(1), day_start_equity=Decimal(1), peak_equity=Decimal(1))


def entry(event, *, trace_id="trace", timestamp_ms=1_700_000_000_000) -> Entry:
    """Return the first entry of a journal."""
    return chained(event, seq=1, timestamp_ms=timestamp_ms, trace_id=trace_id, previous=codec.GENESIS)


def told(event, **more):
    """Return the data of what follows from an event, by type."""
    found = events_of(entry(event, **more), "j")
    return {one.event_type: one for one in found}


def note(number: int) -> Noted:
    """Return an event of the shell."""
    return Noted(event_type="health.started", detail={"number": str(number)})


def test_a_decision_becomes_generated_filtered_ranked_and_decided():
    """In that order, each signal with its own trace, and the numbers of each refusal."""
    snapshot = make_snapshot(candidates=(make_candidate(BTC), make_candidate(ETH, probability=0.51)))
    event = CandlesDecided.of(snapshot, Policy(), 1000, decide(snapshot, Policy(), snapshot.candle_close_ms))
    found = events_of(entry(event), "j")
    kinds = [one.event_type for one in found]

    assert kinds[:2] == ["signal.generated"] * 2
    assert kinds[2:4] == ["signal.filtered"] * 2
    assert kinds[4:] == ["signal.ranked", "market.tick", "signal.decided"]
    passed = {one.data["symbol"]: (one.data["passed"], one.data["code"]) for one in found[2:4]}
    assert passed == {BTC: (True, ""), ETH: (False, "CONFIDENCE_BELOW_THRESHOLD")}
    assert [one["symbol"] for one in found[4].data["ranking"]] == [BTC]
    assert found[6].data["denied"] == {"CONFIDENCE_BELOW_THRESHOLD": 1}
    traces = {candidate.signal.symbol: candidate.signal.trace_id for candidate in snapshot.candidates}
    assert {one.data["symbol"]: one.trace_id for one in found[:2]} == traces
    assert len({one.event_id for one in found}) == 7
    assert found[5].data["quotes"].keys() == snapshot.quotes.keys()
    assert found[5].data["quotes"][BTC]["bid"] == str(snapshot.quotes[BTC].bid)
    assert found == events_of(entry(event), "j")


def test_a_limit_that_refused_is_told_once_for_all_symbols():
    """However many candidates it refused at one candle."""
    policy = Policy(max_positions=1)
    snapshot = make_snapshot(candidates=(make_candidate(BTC), make_candidate(ETH)))
    event = CandlesDecided.of(snapshot, policy, 1000, decide(snapshot, policy, snapshot.candle_close_ms))
    limit = told(event)["risk.candidates_refused"]

    assert (limit.data["code"], len(limit.data["symbols"])) == ("MAX_POSITIONS", 1)
    assert limit.source == "risk"


@pytest.mark.parametrize("code", DenyCode)
def test_a_refusal_by_account_or_portfolio_is_told_of_risk(code):
    """Each code is one or the other: where this fails for a new one, decide whose refusal it is, and say so here."""
    denied = (Denied(symbol=BTC, code=code, context={"found": "1"}),)
    event = CandlesDecided(now_ms=1, policy=Policy(), snapshot=make_snapshot(), approved=(), denied=denied)
    limit = told(event).get("risk.candidates_refused")

    assert (code in OF_ALL) is not (code in OF_ONE)
    assert (limit is not None) is (code in OF_ALL)
    assert limit is None or (limit.data["code"], limit.data["symbols"], limit.data["context"]) == (
        code.value,
        [BTC],
        {"found": "1"},
    )


def test_limits_that_were_told_first_keep_their_ids():
    """What is told of more limits than before changes no id of those that were told already."""
    codes = (DenyCode.BREAKER_OPEN, DenyCode.MAX_POSITIONS, DenyCode.PEAK_DRAWDOWN, DenyCode.DAILY_DRAWDOWN)
    denied = tuple(Denied(symbol=BTC, code=code, context={}) for code in codes)
    event = CandlesDecided(now_ms=1, policy=Policy(), snapshot=make_snapshot(), approved=(), denied=denied)
    found = [one for one in events_of(entry(event), "j") if one.event_type == "risk.candidates_refused"]

    assert [one.data["code"] for one in found] == ["MAX_POSITIONS", "DAILY_DRAWDOWN", "BREAKER_OPEN", "PEAK_DRAWDOWN"]
    assert len({one.event_id for one in found}) == 4


def test_a_trade_is_created_filled_and_updated():
    """Under the names that subscribers of trades look for."""
    created = told(TradePlanned(plan=PLAN))
    filled = told(FillBooked(fill=FILL))

    assert set(created) == {"trade.created", "trade.planned"}
    assert created["trade.created"].trace_id == PLAN.trace_id
    assert set(filled) == {"trade.filled", "trade.updated"}
    assert filled["trade.updated"].data["because"] == "filled"


def test_candles_become_closed_late_and_filled_gaps():
    """Words of the journal are lists on the bus."""
    detail = {
        "close_time_ms": "300000",
        "timeframe": "5m",
        "symbols": f"{BTC},{ETH}",
        "late_ms": "12",
        "late": "X",
        "filled": f"{BTC}=3",
    }
    found = told(Noted(event_type="market.candles_closed", detail=detail))

    assert found["market.candles_closed"].data == {
        "close_time_ms": 300_000,
        "timeframe": "5m",
        "symbols": [BTC, ETH],
        "late_ms": 12,
    }
    assert found["market.candles_late"].data["symbols"] == ["X"]
    assert found["market.gap_filled"].data["candles"] == {BTC: 3}


def test_the_catalogue_knows_every_event_that_is_journaled():
    """A type that some part of the worker journals has its line; where this fails, add it to CATALOGUE."""
    word = re.compile(r'"((?:market|signal|trade|risk|health|policy|model|audit)\.[a-z_]+)"')
    # Tables of storage and names of rules and files are written alike, and are none.
    sources = [path for path in (ROOT / "inference").rglob("*.py") if path.parent.name not in ("bus", "storage")]
    sources = [path for path in sources if path.name not in ("values.py", "store.py", "policy_file.py")]
    journaled = {name for path in sources for name in word.findall(path.read_text())}
    # What only the shadow's own journal holds.
    journaled -= {"signal.shadow"}

    assert journaled <= set(KINDS)
    assert set(codec._KNOWN) - {"signal.shadow"} <= set(KINDS)
    follows = {one.event_type for one in CATALOGUE if one.follows_from}
    unsaid = {one.event_type for one in CATALOGUE if not one.is_said}
    assert set(KINDS) - follows - unsaid <= journaled
    assert unsaid.isdisjoint(journaled | follows)
    assert unsaid == {"market.orderbook", "rl.observation", "rl.action", "rl.reward"}


def test_the_catalogue_is_well_formed():
    """One line for each type, in a known family, said by somebody, following from something that exists."""
    assert len(KINDS) == len(CATALOGUE)
    for one in CATALOGUE:
        assert one.event_type.partition(".")[0] in FAMILIES
        assert checked_patterns((one.event_type,))
        assert one.meaning
        assert one.said_by
        assert one.follows_from in {"", "any", *KINDS}
    assert said_by("rl.reward") == "learning"
    assert said_by("nothing.known") == "worker"
