from __future__ import annotations

import pytest

from infra.prove.ingest import Held, Scale, judged, refetched
from infra.prove.proof import Proof
from infra.prove.recording_proxy import AskedPage

STEP = 300_000
SCALE = Scale(symbols=1, days=1, kills=1)
WHOLE = Held("BTC/USDT:USDT", expected=2_000, found=2_000, differing=0, doubled=0)


def page(run: int, first: int, count: int = 1_000, symbol: str = "BTCUSDT") -> AskedPage:
    """A page of candles that are numbered from some start on."""
    return AskedPage(run, symbol, first * STEP, first * STEP, (first + count - 1) * STEP, count)


PAGES = (page(1, 0), page(1, 1_000), page(2, 1_000), page(2, 2_000, 100))


def verdict(**changed: object) -> Proof:
    """The judgement of a sound run with something changed about it."""
    what: dict[str, object] = {"kills": 1, "pages": PAGES, "held": [WHOLE]} | changed
    return judged(SCALE, **what)  # type: ignore[arg-type]


def test_a_whole_lake_without_needless_pages_holds():
    """One page under way at a kill may come again; nothing else did, and every series is whole."""
    proof = verdict()
    assert proof.holds
    assert "1 asked for again after a kill (at most 4), 0 needlessly" in proof.figure


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"kills": 0}, id="was-never-killed"),
        pytest.param({"held": []}, id="series-absent"),
        pytest.param({"held": [Held("X", 2_000, 1_999, 0, 0)]}, id="candle-absent"),
        pytest.param({"held": [Held("X", 2_000, 2_000, 1, 0)]}, id="candle-differs"),
        pytest.param({"held": [Held("X", 2_000, 2_000, 0, 1)]}, id="candle-doubled"),
        pytest.param({"pages": (*PAGES, page(3, 0))}, id="page-asked-for-again"),
        pytest.param({"pages": (page(1, 0), page(1, 0))}, id="page-twice-in-one-run"),
        pytest.param(
            {"pages": [page(run, 0, symbol=f"S{n}") for run in (1, 2) for n in range(5)]},
            id="more-pages-again-than-were-under-way",
        ),
    ],
)
def test_the_proof_can_fail(changed):
    """Whatever breaks the promise is seen."""
    assert not verdict(**changed).holds


def test_a_page_that_was_cut_at_a_month_comes_again_in_part():
    """A kill between two files of one page leaves its second half to be fetched, by whichever run comes next."""
    pages = (page(1, 0), page(2, 0), page(3, 600))
    assert (refetched(pages).interrupted, refetched(pages).needless) == (2, ())


def test_candles_that_are_verified_again_are_not_a_page():
    """A few candles before the new ones are asked for on purpose."""
    pages = (page(1, 0), page(2, 988, 20))
    assert refetched(pages).interrupted == 1
    assert refetched(pages, verified_again=12) == refetched(())


def test_a_page_that_two_runs_had_not_stored_comes_again():
    """The end of a page that died with the first run is left over where the second began twelve candles earlier."""
    pages = (page(1, 12), page(2, 0), page(3, 988))
    assert (refetched(pages, verified_again=12).interrupted, refetched(pages, verified_again=12).needless) == (1, ())


def test_a_page_that_a_run_went_on_from_was_stored():
    """It does not come again, although an earlier run was killed at the same page."""
    pages = (page(1, 0), page(2, 0), page(2, 1_000), page(3, 0))
    assert refetched(pages).needless == (pages[-1],)
