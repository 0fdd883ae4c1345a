"""The figures of a demonstration's summary."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from infra.stack.figures import Report, reasons_by_line, scores_of, total_interval, trading_of
from infra.stack.prefect_api import Progress
from infra.stack.screen import Screen, show_report, tables


def round_trip(symbol: str, pnl: str) -> dict[str, str]:
    return {"symbol": symbol, "pnl": pnl, "gross_pnl": pnl, "fees": "0.5", "funding": "0"}


AUDIT = {
    "trades": [round_trip("OLD", "-100"), round_trip("A", "2"), round_trip("B", "-1"), round_trip("A", "3")],
    "equity": "10004",
    "open_positions": [{"symbol": "C", "quantity": "-3", "entry_price": "10", "protected": False}],
    "unprotected": {"max_wall_ms": 41.5, "intervals": [{"wall_ms": 41.5}]},
    "duplicate_client_ids": [],
}


def test_trades_of_an_earlier_run_do_not_count():
    """The summary speaks of this run: what was closed before it is left out."""
    trading = trading_of(AUDIT, before=1)

    assert trading.closed_trades == 3
    assert trading.symbols == ["A", "B"]
    assert trading.pnl == pytest.approx(4.0)
    assert trading.fees == pytest.approx(1.5)
    assert trading.winners == 2
    assert trading.max_unprotected_ms == 41.5


@given(st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=60))
def test_the_interval_of_a_total_is_ordered_and_possible(values):
    """A bootstrap interval is ordered and stays within what drawing only the worst or the best trade would give."""
    low, high = total_interval(values, samples=200)
    slack = 1e-6 * (1 + sum(map(abs, values)))

    assert len(values) * min(values) - slack <= low <= high <= len(values) * max(values) + slack


def test_the_interval_covers_zero_when_trades_mean_nothing():
    """Even gains and losses give an interval around zero, all gains one above it, no trades none."""
    low, high = total_interval([1.0, -1.0] * 50)

    assert low < 0 < high
    assert total_interval([1.0, 1.2] * 50)[0] > 0
    assert total_interval([]) == (0.0, 0.0)


def test_scores_come_from_candles_no_member_saw_where_there_are_any():
    """Shadow figures win over calibration figures, and baselines stand last."""
    metrics = {
        "calibration/ensemble/rmse": 9.0,
        "shadow/zero/rmse": 0.02,
        "shadow/ensemble/rmse": 0.01,
        "shadow/xgboost/rmse": 0.015,
        "shadow/xgboost/r2": 0.1,
        "shadow/candles": 500.0,
    }
    window, models = scores_of(metrics)

    assert window == "shadow"
    assert [(one.name, one.role) for one in models] == [
        ("xgboost", "member"),
        ("ensemble", "ensemble"),
        ("zero", "baseline"),
    ]
    assert scores_of({}) == (None, [])


def test_the_summary_says_what_was_asked_of_it():
    """Models against baselines, trades, fees, PnL with its interval, protection, journal and worker are all there."""
    output = io.StringIO()
    window, models = scores_of({"shadow/zero/rmse": 0.02, "shadow/ensemble/rmse": 0.01})
    report = Report(
        exit_status=0,
        outcome="3 trades were closed.",
        window=window,
        models=models,
        verdict="passed",
        trading=trading_of(AUDIT, before=1),
        journal="12 entries",
        journal_verified=True,
        worker={"cold_start_s": 1.25, "rss_mb": 201.0},
    )
    show_report(Screen(Console(file=output, width=160)), report)
    text = output.getvalue()

    for expected in (
        "zero",
        "ensemble",
        "3 closed",
        "fees of 1.50",
        "95 % interval",
        "42 ms",
        "verified",
        "1.25",
        "201",
    ):
        assert expected in text


def test_an_unprotected_position_shows():
    """The live table says NO where a position has no stop at the venue."""
    output = io.StringIO()
    Console(file=output, width=160).print(
        tables({"last_signals": [], "refusals": {"COOLDOWN": 3}}, AUDIT, "headline", height=40)
    )

    assert "SHORT" in output.getvalue()
    assert "NO" in output.getvalue()
    assert "COOLDOWN" in output.getvalue()


def test_without_a_terminal_lines_come_calmly():
    """A hundred updates in a moment give one line, not a hundred."""
    output = io.StringIO()
    screen = Screen(Console(file=output, width=160))
    with screen.bars() as bars:
        for percent in range(100):
            bars.show([Progress(key="progress-train", percent=percent, description="Train")], [], 1.0)

    assert output.getvalue().count("Train") == 1


def test_each_reason_of_a_refusal_gets_a_line():
    """MLflow holds the reasons as one text; a semicolon inside a reason does not split it."""
    reasons = [
        "rmse_skill_low was -0.003, bound 0. Errors; by more than chance.",
        "shadow_days was -, bound 3. Too few.",
    ]

    assert reasons_by_line(" ".join(reasons)).splitlines() == reasons
    assert reasons_by_line("; ".join(reasons)).splitlines() == reasons
    assert reasons_by_line(None) is None
