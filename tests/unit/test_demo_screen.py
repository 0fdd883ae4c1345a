"""How the demonstration shows itself: bars and tables on a terminal, calm plain lines in a log."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from infra.stack.figures import ModelScore, Report
from infra.stack.prefect_api import Progress
from infra.stack.screen import Screen, show_report

STEPS = [
    Progress(key="progress-ingest", percent=100.0, description="Ingest"),
    Progress(key="progress-train", percent=42.0, description="Training: nhits"),
]
AUDIT = {"open_positions": [{"symbol": "BTC/USDT:USDT", "quantity": "-0.5", "entry_price": "60000", "protected": True}]}
WORKER = {
    "last_signals": [
        {
            "symbol": "ETH/USDT:USDT",
            "direction": "LONG",
            "confidence": 0.61,
            "expected_return": 0.0012,
            "code": "ALLOWED",
        }
    ],
    "refusals": {"CONFIDENCE_TOO_LOW": 3},
}
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def screen(*, terminal: bool, width: int = 120, height: int = 60) -> tuple[Screen, io.StringIO]:
    written = io.StringIO()
    console = Console(
        file=written, force_terminal=terminal, width=width, height=height, highlight=False, legacy_windows=False
    )
    return Screen(console), written


def play(shown: Screen) -> None:
    with shown.step("Starting [the] exchange"):
        pass
    with shown.bars() as bars:
        bars.show([], [], 1.0)
        bars.show(STEPS, ["train-members"], 20.0)
    with shown.live() as view:
        view.show(WORKER, AUDIT, "worker trading, closed trades 2")


def test_a_terminal_gets_bars_and_tables():
    """Each long step has a bar, and positions, signals and refusals have a table each."""
    shown, written = screen(terminal=True)
    play(shown)
    text = ESCAPE.sub("", written.getvalue())

    for words in ("Starting [the] exchange", "Ingest", "Training: nhits"):
        assert re.search(rf"{re.escape(words)} +━+", text), words
    assert "42.0 %" in text
    assert re.search(r"BTC/USDT:USDT +SHORT +0.5 +60000 +yes", text)
    assert re.search(r"ETH/USDT:USDT +LONG +0.610 +\+12.0 bps +ALLOWED", text)
    assert re.search(r"CONFIDENCE_TOO_LOW +3", text)


def test_a_small_terminal_is_enough():
    """On 80 columns and 24 lines nothing is cut: neither the codes of refusals, nor their table, nor a model's name."""
    shown, written = screen(terminal=True, width=80, height=24)
    codes = ("CONFIDENCE_BELOW_THRESHOLD", "EXPOSURE_ABOVE_MAXIMUM", "POSITION_OPEN", "SYMBOL_COOLING_DOWN")
    signal = WORKER["last_signals"][0] | {"symbol": "1000SHIB/USDT:USDT", "direction": "SHORT", "code": codes[0]}
    scores = {
        "rmse": 0.00853,
        "mae": 0.00657,
        "r2": -0.52683,
        "hit_rate": 0.583,
        "ic": -0.238,
        "net_per_trade_bps": -17.9,
    }
    with shown.live() as view:
        view.show(
            {"last_signals": [signal] * 20, "refusals": dict.fromkeys(codes, 1234)},
            {"open_positions": AUDIT["open_positions"] * 20},
            "worker trading, candles 123400, closed trades 1234 on 20 symbols, PnL +12345.67 USDT",
        )
    show_report(shown, Report(models=[ModelScore(name="persistence", role="baseline", scores=scores)]))
    text = ESCAPE.sub("", written.getvalue())

    assert "…" not in text
    assert "..." not in text
    for code in codes:
        assert re.search(rf"{code} +1234", text)
    assert re.search(rf"1000SHIB/USDT:USDT +SHORT +0.610 +\+12.0 bps +{codes[0]}", text)
    assert re.search(r"persistence +baseline +0.00853 +0.00657 +-0.52683 +0.583 +-0.238 +-17.9", text)


def test_a_terminal_is_told_what_is_waited_for():
    """Before the first step reports, a moving bar says that Prefect's worker has not begun."""
    shown, written = screen(terminal=True)
    with shown.bars() as bars:
        bars.show([], [], 1.0)

    assert re.search(r"Waiting for the Prefect worker +━+", ESCAPE.sub("", written.getvalue()))


def test_a_log_gets_plain_lines():
    """Without a terminal there is no escape sequence and no bar; a line says how far the unfinished step is."""
    shown, written = screen(terminal=False)
    with shown.step("Starting [the] exchange"):
        pass
    with shown.bars() as bars:
        bars.show(STEPS, [], 20.0)

    assert written.getvalue().splitlines() == ["Starting [the] exchange", "     20 s  Training: nhits 42 %"]


@pytest.mark.parametrize(
    ("steps", "running", "says"),
    [([], [], "waiting for the Prefect worker"), ([], ["train-members"], "train-members")],
)
def test_a_log_says_what_is_done_meanwhile(steps, running, says):
    """Until a step reports, the line names the running task, or that nothing has begun."""
    shown, written = screen(terminal=False)
    with shown.bars() as bars:
        bars.show(steps, running, 3.0)

    assert written.getvalue() == f"      3 s  {says}\n"


def test_a_log_is_not_flooded():
    """However often the figures change, a log gets one line of them in a while."""
    shown, written = screen(terminal=False)
    with shown.live() as view:
        for trades in range(50):
            view.show(WORKER, AUDIT, f"closed trades {trades}")

    assert written.getvalue().splitlines() == ["  closed trades 0; open positions 1; refusals: CONFIDENCE_TOO_LOW 3"]
