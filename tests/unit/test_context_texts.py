"""What a text is about, and how it sounds: decided offline."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.context.lexicon import LONGEST_TEXT, WORDS, lexicon_digest, score
from feature_store.context.mentions import Mentions, asset_of
from feature_store.context.texts import Texts
from feature_store.features.definition import FEATURE_NAMES
from tests.feature_support import python


@pytest.mark.parametrize(
    ("text", "assets"),
    [
        ("$btc to the moon", ("BTC",)),
        ("#ETH and #SOL", ("ETH", "SOL")),
        ("Bitcoin falls, ether follows", ("BTC", "ETH")),
        ("BTC/USDT trades lower", ("BTC",)),
        ("Bitcoin Cash forks again", ("BCH",)),
        ("Ethereum Classic is not Ethereum", ("ETC", "ETH")),
        ("A link to our ONE TOP story", ()),
        ("$LINK and $ONE", ("LINK", "ONE")),
        ("BITCOIN AND XRP CRASH NOW", ("BTC",)),
        ("$BTC AND XRP CRASH NOW", ("BTC",)),
        ("bitcoins, tronic, altcoins", ()),
        ("mail ETH@example.com, see x.com/ETH", ()),
        ("US$5 and $5B", ()),
        ("\uff22itcoin in wide letters", ("BTC",)),
        ("$UNKNOWN", ()),
        ("", ()),
    ],
)
def test_mentions(text, assets):
    """A sign, a word in capitals, or a name; never part of another word, nor a word that means something else."""
    assert Mentions(["ONE"]).of(text) == assets


@pytest.mark.parametrize(
    ("symbol", "asset"),
    [
        ("BTC/USDT:USDT", "BTC"),
        ("1000SHIB/USDT:USDT", "SHIB"),
        ("1INCH/USDT", "1INCH"),
        ("1MBABYDOGE/USDT", "BABYDOGE"),
    ],
)
def test_multiples_are_the_asset_itself(symbol, asset):
    """Contracts over a thousand coins are about that coin."""
    assert asset_of(symbol) == asset


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("Bitcoin is great", "Bitcoin is terrible"),
        ("Bullish breakout for Ether", "Exchange hacked, insolvent"),
        ("not bad at all", "bad"),
        ("good", "not good"),
        ("GREAT!!!", "ok"),
    ],
)
def test_scores_order_as_people_would(better, worse):
    """A text that sounds better has the higher score."""
    assert score(better) > score(worse)


def test_a_text_without_known_words_is_neutral():
    """Nothing is read into what the lexicon does not know."""
    assert score("") == score("Der Kurs steht") == score("0x1234") == 0


@given(st.text(max_size=300))
def test_any_text_has_a_score_and_assets_that_we_know(text):
    """Whatever signs a text holds: a score from -1 to 1 in four decimals, and an observation that says so."""
    value = score(text)
    assert -1 <= value <= 1
    assert value == round(value, 4)
    figures = Texts(Mentions()).observed("a", text, None).figures
    assert figures[0].subject == ""
    assert {figure.value for figure in figures} == {value}


def test_only_the_beginning_of_a_long_text_counts():
    """A text is read up to a bound; nobody drowns a score in a novel, nor us."""
    assert score("good " + "x " * LONGEST_TEXT + "terrible " * 10_000) == score("good " + "x " * LONGEST_TEXT)


def test_scores_are_bound_to_their_lexicon():
    """Other words or weights would be another lexicon, and say so; a second process reads the same one."""
    code = "from feature_store.context.lexicon import lexicon_digest; print(lexicon_digest())"
    assert python(code).strip() == lexicon_digest()
    code = f"from feature_store.context import lexicon; lexicon.WORDS['moon'] = 1.9; {code}"
    assert python(code).strip() != lexicon_digest()
    assert all(-4 <= weight <= 4 for weight in WORDS.values())


def test_no_source_is_among_the_49():
    """Sentiment and market data stay out of the feature set that models consume."""
    assert len(FEATURE_NAMES) == 49
    assert not [name for name in FEATURE_NAMES if any(word in name for word in ("sentiment", "mention", "dominance"))]
