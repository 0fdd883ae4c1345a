"""Context features: what had arrived, no more, and nothing where nothing was known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.context import definition
from feature_store.context.definition import CONTEXT_FEATURES, CONTEXT_NAMES, DAY_MS, HOUR_MS, context_fingerprint
from feature_store.context.features import ContextView
from feature_store.context.observation import MARKET, SENTIMENT, TEXTS_POLLED, Figure, Observation
from feature_store.context.store import ObservationStore, Told
from feature_store.features.definition import FEATURE_NAMES, fingerprint

T0 = 1_700_000_000_000
MINUTE_MS = 60_000


def told(rows) -> Told:
    """Return rows of (minute of arrival, minute claimed, item, revision, subject, metric, value) as they were told."""
    rows = sorted(rows, key=lambda row: (row[0], row[2], row[3]))
    arrived = np.array([T0 + row[0] * MINUTE_MS for row in rows], np.int64)
    claimed = np.array([T0 + row[1] * MINUTE_MS for row in rows], np.int64)
    return Told(
        tuple("s" for _ in rows),
        arrived,
        np.minimum(claimed, arrived),
        tuple(row[2] for row in rows),
        np.array([row[3] for row in rows], np.int64),
        np.array([row[4] for row in rows], np.str_),
        np.array([row[5] for row in rows], np.str_),
        np.array([row[6] for row in rows], np.float64),
    )


def at(rows, *minutes: float, asset: str = "BTC") -> list[dict[str, float]]:
    moments = np.array([T0 + minute * MINUTE_MS for minute in minutes], np.int64)
    return [
        dict(zip(CONTEXT_NAMES, row, strict=True)) for row in ContextView(told(rows)).features(asset, moments).tolist()
    ]


def text(minute, item, value, *, claimed=None, revision=0, subject="BTC"):
    return (minute, minute if claimed is None else claimed, item, revision, subject, SENTIMENT, value)


def test_nothing_known_is_no_number():
    """Before anything arrived every feature is NaN: unknown is not zero."""
    (row,) = at([], 0)
    assert all(math.isnan(value) for value in row.values())


def test_texts_count_from_their_arrival_for_as_long_as_they_are_news():
    """A text counts from when it arrived until an hour or a day after it happened."""
    rows = [text(10, "a", 0.5, claimed=-20), text(20, "b", -0.1), (10, 10, "polled", 0, MARKET, TEXTS_POLLED, 1.0)]
    before, first, both, later, much_later = at(rows, 9, 10, 20, 40, 24 * 60 + 20)
    assert math.isnan(before["sentiment_1h"])
    assert (first["sentiment_1h"], first["mentions_1h"]) == (0.5, math.log(2))
    assert both["sentiment_24h"] == pytest.approx(0.2)
    assert (later["sentiment_1h"], later["sentiment_24h"]) == (-0.1, pytest.approx(0.2))
    assert math.isnan(much_later["sentiment_24h"])


def test_what_was_published_long_before_we_asked_is_no_news():
    """The old entries of a feed that is asked for the first time do not look like a sudden crowd."""
    rows = [text(0, str(n), 0.9, claimed=-2 * DAY_MS // MINUTE_MS) for n in range(50)]
    rows.append((0, 0, "polled", 0, MARKET, TEXTS_POLLED, 50.0))
    (row,) = at(rows, 1)
    assert row["mentions_24h"] == 0
    assert math.isnan(row["sentiment_24h"])


def test_no_mention_is_zero_only_where_somebody_listened():
    """Zero texts is a fact if a source of texts answered within the window; else nothing is known."""
    asked = [(0, 0, "polled", 0, MARKET, TEXTS_POLLED, 0.0)]
    now, after_an_hour, after_a_day = at(asked, 59, 61, 24 * 60)
    assert (now["mentions_1h"], now["mentions_24h"], now["attention"]) == (0, 0, 0)
    assert math.isnan(after_an_hour["mentions_1h"])
    assert after_an_hour["mentions_24h"] == 0
    assert math.isnan(after_a_day["mentions_24h"])


def test_an_edited_text_counts_as_it_was_known():
    """Until its edit arrived a text counts as it was; then as it is, and no asset that it no longer names keeps it."""
    rows = [
        text(0, "a", 0.8),
        text(0, "a", 0.8, subject="ETH"),
        text(10, "a", -0.8, claimed=0, revision=1),
    ]
    before, after = at(rows, 9, 10)
    assert (before["sentiment_1h"], after["sentiment_1h"]) == (0.8, -0.8)
    before, after = at(rows, 9, 10, asset="ETH")
    assert before["sentiment_1h"] == 0.8
    assert math.isnan(after["sentiment_1h"])


def test_market_figures_hold_until_they_are_stale():
    """Rank, turnover, share and dominance are the newest that had arrived, for a day at most."""
    day = DAY_MS // MINUTE_MS

    def figures(minute, item, whole):
        return [
            (minute, minute, f"b{item}", 0, "BTC", "market_cap_usd", 800.0),
            (minute, minute, f"b{item}", 0, "BTC", "volume_usd", 80.0),
            (minute, minute, f"b{item}", 0, "BTC", "market_cap_rank", 1.0),
            (minute, minute, f"g{item}", 0, MARKET, "total_market_cap_usd", whole),
            (minute, minute, f"g{item}", 0, "BTC", "dominance_percent", 50.0),
        ]

    first, second, stale = at(figures(0, 1, 1000.0) + figures(day - 10, 2, 1600.0), 5, day + 1, 3 * day)
    assert (first["market_cap_rank"], first["bitcoin_dominance"]) == (0, 0.5)
    assert first["turnover"] == pytest.approx(math.log(0.1))
    assert first["market_share"] == pytest.approx(math.log(0.8))
    assert math.isnan(first["market_change_24h"])
    assert second["market_change_24h"] == pytest.approx(math.log(1.6))
    assert all(math.isnan(value) for value in stale.values())


minutes = st.integers(0, 3000)
texts = st.lists(
    st.tuples(minutes, st.integers(-4000, 4000), st.integers(-10_000, 10_000), st.sampled_from(["BTC", "ETH"]))
)
markets = st.lists(
    st.tuples(minutes, st.sampled_from(["market_cap_usd", "volume_usd", "total_market_cap_usd"]), st.integers(1, 999))
)


def every_row(texts, markets, edits):
    rows = []
    for number, (minute, claimed, units, subject) in enumerate(texts):
        rows.append(text(minute, f"t{number}", units / 10_000, claimed=claimed, subject=subject))
        for revision in range(1, edits[number % len(edits)] + 1 if edits else 1):
            later = minute + 7 * revision
            rows.append(text(later, f"t{number}", -units / 10_000, claimed=claimed, revision=revision, subject=subject))
        rows.append((minute, minute, f"p{number}", 0, MARKET, TEXTS_POLLED, 1.0))
    for number, (minute, metric, value) in enumerate(markets):
        subject = MARKET if metric.startswith("total") else "BTC"
        rows.append((minute, minute, f"m{number}", 0, subject, metric, float(value)))
    return rows


@settings(max_examples=60)
@given(texts, markets, st.lists(st.integers(0, 3)), minutes)
def test_what_arrives_later_changes_nothing_before(texts, markets, edits, now):
    """Features of a moment are the same, to the bit, with all that was ever told and with what was told by then."""
    rows = every_row(texts, markets, edits)
    moments = np.array([T0 + minute * MINUTE_MS for minute in (now, now / 2, now - 1)], np.int64)
    whole = ContextView(told(rows)).features("BTC", moments)
    known = ContextView(told([row for row in rows if row[0] <= now])).features("BTC", moments)
    assert np.array_equal(whole, known, equal_nan=True)


@settings(max_examples=60)
@given(texts, st.lists(st.integers(0, 3)), minutes)
def test_means_and_counts_agree_with_counting_by_hand(texts, edits, now):
    """The running sums give what going through every text at every moment gives."""
    rows = every_row(texts, [], edits)
    (row,) = at(rows, now)
    for window, mean, count in ((60, "sentiment_1h", "mentions_1h"), (1440, "sentiment_24h", "mentions_24h")):
        newest = {}
        for one in sorted((one for one in rows if one[0] <= now and one[5] == SENTIMENT), key=lambda one: one[3]):
            newest[one[2]] = one
        values = [one[6] for one in newest.values() if one[4] == "BTC" and min(one[1], one[0]) > now - window]
        assert row[mean] == pytest.approx(np.mean(values), abs=1e-12) if values else math.isnan(row[mean])
        asked = [one[0] for one in rows if one[5] == TEXTS_POLLED and now - window < one[0] <= now]
        assert row[count] == pytest.approx(math.log(1 + len(values))) if asked else math.isnan(row[count])


def test_the_set_is_its_own(monkeypatch):
    """Twelve named features apart from the 49, whose fingerprint changes with any of them and leaves the 49's alone."""
    ours, theirs = context_fingerprint(), fingerprint()
    assert not set(CONTEXT_NAMES) & set(FEATURE_NAMES)
    assert len(set(CONTEXT_NAMES)) == len(CONTEXT_NAMES) == 12
    assert all(one.formula and one.unknown for one in CONTEXT_FEATURES)
    monkeypatch.setattr(definition, "VERSION", 2)
    context_fingerprint.cache_clear()
    changed = context_fingerprint()
    context_fingerprint.cache_clear()
    assert len({ours, changed, theirs}) == 3
    assert fingerprint() == theirs


@settings(max_examples=25)
@given(
    st.lists(
        st.lists(
            st.tuples(st.sampled_from("abc"), st.none() | st.integers(-5, 5), st.sampled_from([0.5, -0.5, math.nan])),
            max_size=5,
        ),
        max_size=6,
    )
)
def test_the_store_only_ever_adds(tmp_path_factory, answers):
    """Whatever is served, again or changed or without sense: what was stored stays as it was, in its order."""
    store = ObservationStore(tmp_path_factory.mktemp("store"))
    before: list[tuple] = []
    for number, answer in enumerate(answers):
        now_ms = T0 + number * 7 * HOUR_MS
        observations = [
            Observation(item, None if day is None else now_ms + day * DAY_MS, (Figure("BTC", SENTIMENT, value),))
            for item, day, value in answer
        ]
        store.append("s", observations, now_ms, topic=TEXTS_POLLED)
        assert store.append("s", observations, now_ms, topic=TEXTS_POLLED) == 0
        found = store.read()
        after = list(
            zip(found.item, found.revision.tolist(), found.value.tolist(), found.available_at_ms.tolist(), strict=True)
        )
        assert after[: len(before)] == before
        assert (found.event_ms <= found.available_at_ms).all()
        assert np.isfinite(found.value).all()
        before = after
