"""How flows read the environment."""

from __future__ import annotations

import json
from typing import get_args

import pytest

from feature_store.errors import BadInputError
from flows.settings import FlowSettings, parse_moment, parse_symbols
from flows.training.verdict import ModeName
from inference.settings import Mode


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch, tmp_path):
    for name in (
        "MODE",
        "VENUE",
        "VENUE_URL",
        "SYMBOLS",
        "TIMEFRAME",
        "DAYS",
        "SIZE",
        "MLFLOW_URL",
        "MLFLOW_PUBLIC_URL",
    ):
        monkeypatch.delenv(f"QT_{name}", raising=False)
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path))


def test_what_a_flow_was_told_wins(monkeypatch):
    """A parameter wins over the environment, an empty one leaves it as it is."""
    monkeypatch.setenv("QT_DAYS", "90")
    monkeypatch.setenv("QT_VENUE", "bitfinex")

    settings = FlowSettings.of(days=7, venue=None)

    assert (settings.days, settings.venue) == (7, "bitfinex")


def test_home_is_ours_not_the_persons(monkeypatch, tmp_path):
    """QUANTUM_HOME names the home; HOME, which every shell sets, does not."""
    monkeypatch.delenv("QUANTUM_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "person"))

    assert FlowSettings.of().home.name == "var"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("QT_MODE", "casino"),
        ("QT_VENUE", "kraken"),
        ("QT_TIMEFRAME", "7m"),
        ("QT_DAYS", "0"),
        ("QT_DAYS", "soon"),
        ("QT_SIZE", "huge"),
    ],
)
def test_unusable_values_are_named(monkeypatch, name, value):
    """The error names the variable and what it held."""
    monkeypatch.setenv(name, value)

    with pytest.raises(BadInputError, match=f"{name}: .* was '{value}'"):
        FlowSettings.of()


def test_flows_judge_for_the_modes_in_which_workers_trade():
    """What a worker can start in is judged for, and nothing else; only a test network's candles are in no lake."""
    assert set(get_args(ModeName)) == {mode.value for mode in Mode}
    assert [mode for mode in Mode if FlowSettings.of(mode=mode.value).trades_other_candles] == [Mode.TESTNET]


def test_addresses_come_from_the_stack(monkeypatch, tmp_path):
    """What the environment leaves out is looked up in the record of the running stack."""
    services = {"sandbox": {"url": "http://127.0.0.1:9100/"}, "mlflow": {"url": "http://127.0.0.1:5000"}}
    (tmp_path / "stack.json").write_text(json.dumps({"services": services}))
    monkeypatch.setenv("QT_MLFLOW_URL", "http://127.0.0.1:5999")

    settings = FlowSettings.of()

    assert settings.venue_address == "http://127.0.0.1:9100"
    assert settings.registry_address == "http://127.0.0.1:5999"
    assert FlowSettings.of(venue="binance").venue_address is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"services": {}}', '{"services": {"mlflow": {"url": null}}}'])
def test_damaged_record_is_no_record(tmp_path, content):
    """A record that cannot be read leaves an address unknown rather than failing."""
    (tmp_path / "stack.json").write_text(content)

    assert FlowSettings.of().registry_address is None


def test_links_may_have_another_address(monkeypatch):
    """Pages link to where a browser finds MLflow, which may differ from where flows do."""
    monkeypatch.setenv("QT_MLFLOW_URL", "http://mlflow:5000")
    monkeypatch.setenv("QT_MLFLOW_PUBLIC_URL", "https://models.example")

    assert FlowSettings.of().registry_page == "https://models.example"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("all", None, id="all"),
        pytest.param("", None, id="nothing"),
        pytest.param(" BTC/USDT:USDT , ETH/USDT:USDT,", ("BTC/USDT:USDT", "ETH/USDT:USDT"), id="spaces"),
        pytest.param("BTC/USDT:USDT,BTC/USDT:USDT", ("BTC/USDT:USDT",), id="twice"),
    ],
)
def test_symbols(text, expected):
    """A comma list is read once each, in order; `all` and nothing mean all."""
    assert parse_symbols(text) == expected


@pytest.mark.parametrize(
    "text", ["2026-03-01", "2026-03-01T00:00", "2026-03-01T00:00:00Z", "2026-03-01T01:00+01:00", " 2026-03-01 "]
)
def test_moments_are_of_utc(text):
    """A date is the moment at which it begins; a zone counts where one is given."""
    assert parse_moment(text).isoformat() == "2026-03-01T00:00:00+00:00"


def test_what_is_no_moment_is_refused():
    """The error shows what a moment looks like."""
    with pytest.raises(BadInputError, match=r"such as 2026-03-01 or .*, was 'soon'"):
        parse_moment("soon")
