"""Which series a flow chooses of what a venue lists, what is stored, and what was said."""

from __future__ import annotations

import pytest

from feature_store.candle import Series, Timeframe
from feature_store.errors import UnknownSymbolError
from feature_store.lake import CandleLake
from flows.known_markets import known_markets, remember_markets
from flows.settings import FlowSettings
from flows.universes import without_candles
from flows.venue import chosen_series
from tests.feature_support import market


class Listing:
    """A venue that says this of its markets and nothing else."""

    def __init__(self, **active: bool) -> None:
        self.markets = {
            symbol(name): {"quote": "USDT", "linear": True, "active": trades} for name, trades in active.items()
        }

    async def load_markets(self):
        """Return them, as ccxt does."""
        return self.markets


def symbol(name: str) -> str:
    return f"{name}/USDT:USDT"


def series(*names: str) -> tuple[Series, ...]:
    return tuple(Series("sandbox", symbol(name), Timeframe.M5) for name in names)


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Return what makes settings of a home in which candles of one symbol are stored that is gone, and of BTC."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path))
    for one in series("BTC", "GONE"):
        CandleLake(tmp_path / "lake").append(one, market(10))
    return lambda symbols: FlowSettings.of(venue="sandbox", timeframe="5m", symbols=symbols)


async def test_a_stored_symbol_that_was_delisted_is_gone(settings):
    """It stops nobody: the others are chosen; a name that was never stored stays bad usage."""
    venue = Listing(BTC=True, ETH=True)
    named = ",".join(map(symbol, ("BTC", "GONE", "ETH")))
    chosen = await chosen_series(venue, settings(named))
    assert (chosen.series, chosen.gone) == (series("BTC", "ETH"), series("GONE"))
    assert (await chosen_series(venue, settings("all"))) == chosen
    alone = await chosen_series(venue, settings(symbol("GONE")))
    assert (alone.series, alone.gone) == ((), series("GONE"))
    with pytest.raises(UnknownSymbolError, match="NOPE"):
        await chosen_series(venue, settings(f"{named},{symbol('NOPE')}"))


async def test_what_trades_no_more_is_fetched_where_the_universe_is_followed(settings):
    """Past weeks need those that did not survive; a list of all that trades needs them not."""
    venue = Listing(BTC=True, ETH=False, GONE=False, OTHER=False)
    followed = await chosen_series(venue, settings("universe"))
    assert (followed.series, followed.settled) == (series("BTC", "ETH"), frozenset(series("ETH")))
    traded = await chosen_series(venue, settings("all"))
    assert (traded.series, traded.gone, traded.settled) == (series("BTC"), series("GONE"), frozenset())
    named = await chosen_series(venue, settings(symbol("ETH")))
    assert (named.series, named.settled) == (series("ETH"), frozenset(series("ETH")))


def test_symbols_that_were_listed_and_never_fetched_are_known(settings):
    """What a venue listed once stays known, and of what the rules could include the universe says that it is absent."""
    chosen = settings("universe")
    assert without_candles(chosen) == []
    remember_markets(chosen, [symbol("SOL"), symbol("BTC"), symbol("NOBODYKNOWS")])
    remember_markets(chosen, [symbol("BTC"), symbol("ETH")])
    assert known_markets(chosen) == tuple(map(symbol, ("BTC", "ETH", "NOBODYKNOWS", "SOL")))
    assert without_candles(chosen) == [symbol("ETH"), symbol("SOL")]
