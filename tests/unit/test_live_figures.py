"""What simulated fills at shown prices bring, and how a challenger compares with a champion on the same candles."""

from __future__ import annotations

import math

import pytest

from flows.replay.live_figures import live_figures, live_report
from flows.replay.maturing import matured
from flows.shadowing import live_markdown, told
from inference.domain.shadow import Role
from tests.shadow_support import CHALLENGER, CHAMPION, OTHER, REAL, SANDBOX, market, moved, opinion, scored

ONE = ("AAA/USDT:USDT",)


def journey(said: list[float | None], middle: list[float | None], *, fee: str = "0.001", threshold: float = 0.5):
    """Return one symbol's candles, each with an opinion of the challenger."""
    return [
        scored(
            at,
            [price],
            (opinion(Role.CHALLENGER, CHALLENGER, [expected], horizon=2, threshold=threshold),),
            half_spread=0.5,
            fee=fee,
            symbols=ONE,
        )
        for at, (expected, price) in enumerate(zip(said, middle, strict=True))
    ]


def test_a_long_buys_at_the_ask_and_sells_at_the_bid():
    """Spread and both fees are paid: 100.5 in, 101.5 out, at a tenth of a percent a side."""
    (rows,) = matured(journey([0.02, None, None], [100.0, 101.0, 102.0]))
    report = live_report(rows)

    expected = (101.5 - 100.5) / 100.5 - 0.001 * (1 + 101.5 / 100.5)
    assert report.curves[0].cumulative_net == (pytest.approx(expected, abs=1e-15),)
    assert report.metrics["live_shadow/ensemble/trades"] == 1.0
    assert report.metrics["live_shadow/predictions"] == 1.0
    # Half a slot was looked at: one candle of a horizon of two.
    assert report.metrics["live_shadow/ensemble_minus_flat/net_per_slot_bps"] == pytest.approx(2e4 * expected)


def test_a_short_sells_at_the_bid_and_buys_at_the_ask():
    """99.5 in, 98.5 out."""
    (rows,) = matured(journey([-0.03, None, None], [100.0, 99.0, 98.0]))

    expected = (99.5 - 98.5) / 99.5 - 0.001 * (1 + 98.5 / 99.5)
    assert live_report(rows).curves[0].cumulative_net == (pytest.approx(expected, abs=1e-15),)


@pytest.mark.parametrize(
    ("said", "threshold", "trades"),
    [
        pytest.param([0.02, 0.02, 0.02, 0.02, None, None], 0.5, 2, id="one-at-a-time"),
        pytest.param([0.011, None, None, None, None, None], 0.5, 0, id="less-than-it-costs"),
        pytest.param([0.02, None, None, None, None, None], 0.95, 0, id="not-confident"),
        pytest.param([None, None, None, None, None, None], 0.5, None, id="abstained"),
    ],
)
def test_entries_are_those_of_the_decision_chain(said, threshold, trades):
    """No entry beside an open one, below the threshold, or below fees and spread."""
    (rows,) = matured(journey(said, [100.0] * 6, threshold=threshold))

    assert live_figures(rows).get("live_shadow/ensemble/trades") == trades


def test_what_never_saw_its_price_is_counted_not_guessed():
    """A quote that lacks at entry or at exit leaves a prediction unpriced; one whose horizon runs is pending."""
    (rows,) = matured(journey([0.02] * 6, [100.0, None, 100.0, 100.0, None, 100.0]))

    assert (len(rows), rows.unpriced, rows.pending) == (2, 2, 2)
    assert live_figures(rows)["live_shadow/coverage"] == 0.5


def test_a_challenger_that_foresees_earns_more_than_one_that_guesses():
    """Paired by candle with the champion's noise, its interval lies above zero; without an edge it does not."""
    figures = {edge: live_figures(matured(market(900, edge=edge, seed=5))[-1]) for edge in (0.0, 0.7)}

    name = "live_shadow/ensemble_minus_champion/net_per_slot_bps"
    assert figures[0.7][f"{name}_low"] > 0
    assert figures[0.0][f"{name}_low"] < 0
    assert figures[0.7]["live_shadow/ensemble/ic"] > 0.4
    assert abs(figures[0.7]["live_shadow/champion/ic"]) < 0.15
    assert figures[0.7]["live_shadow/days"] == pytest.approx(897 / 288)
    assert figures[0.7]["live_shadow/paired_days"] == figures[0.7]["live_shadow/days"]
    assert 500 < figures[0.7]["live_shadow/independent_outcomes"] <= 3 * 299
    assert all(map(math.isfinite, figures[0.7].values()))


def test_challengers_are_told_apart_by_their_bundle():
    """One that replaces another half-way shares its candles' prices and none of its outcomes."""
    first, second = market(50, edge=0.5), market(100, edge=0.5)[50:]
    for number, one in enumerate(second):
        said = (one.event.opinions[0], opinion(Role.CHALLENGER, OTHER, [0.0, 0.001, None]))
        second[number] = scored(50 + number, [100.0, 100.0, 100.0], said)

    found = {rows.ours.digest: rows for rows in matured([*first, *second])}

    assert set(found) == {CHALLENGER, OTHER}
    assert len(found[CHALLENGER]) == 50 * 3
    assert found[CHALLENGER].pending == 0
    assert set(found[OTHER].close_ms.tolist()).isdisjoint(found[CHALLENGER].close_ms.tolist())
    assert found[OTHER].theirs.digest == CHAMPION


def test_the_champion_of_today_is_compared():
    """After the champion has changed, only candles on which the new one was asked are compared."""
    before, after = market(60, edge=0.5), market(120, edge=0.5)[60:]
    for number, one in enumerate(before):
        middle = [float(bid) + 0.01 for bid in one.event.bid]
        before[number] = scored(number, middle, (opinion(Role.CHAMPION, OTHER, [0.01] * 3), one.event.opinions[1]))

    (rows,) = matured([*before, *after])

    assert rows.theirs.digest == CHAMPION
    assert len(rows) == 117 * 3
    assert rows.beside.sum() == 57 * 3


@pytest.mark.parametrize("sandbox_first", [True, False])
def test_markets_are_told_apart(sandbox_first):
    """A bundle that was scored in the sandbox and on a venue has outcomes of each, whichever came last."""
    sandbox, real = market(80, edge=0.9), moved(market(50, edge=0.0, first=900 if sandbox_first else 0), REAL)

    found = [rows for rows in matured([*sandbox, *real]) if rows.ours.digest == CHALLENGER]
    reports = [live_report(rows) for rows in found]

    assert {(one.venue, one.mode, one.metrics["live_shadow/candles"]) for one in reports} == {
        (SANDBOX.venue, SANDBOX.mode, 77.0),
        (REAL.venue, REAL.mode, 47.0),
    }


def test_nothing_matured_says_so():
    """Before the first horizon has ended there are no figures but zeros, and no point to log."""
    (rows,) = matured(market(2))
    report = live_report(rows)

    assert report.metrics["live_shadow/days"] == 0.0
    assert report.metrics["live_shadow/independent_outcomes"] == 0.0
    assert report.points == ()


@pytest.mark.parametrize(
    ("candles", "champion", "said"),
    [
        pytest.param(200, True, "bps a slot more than the champion", id="compared"),
        pytest.param(6, True, "too few to compare", id="too-few"),
        pytest.param(200, False, "without a champion", id="alone"),
    ],
)
def test_people_are_told_what_was_compared(candles, champion, said):
    """A sentence and a page say how it does beside the champion, or why that cannot be said."""
    report = live_report(matured(market(candles, edge=0.5, champion=champion))[-1])
    page = live_markdown(report, "http://mlflow/run", ["One day is left out."])

    assert said in told({report.version: report.metrics})
    assert "QT_SHADOW" in told({})
    assert "One day is left out." in page
    assert ("| champion | " in page.split("### Trades")[0]) == champion
