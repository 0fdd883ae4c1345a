"""The environment's settings, and what refuses to start."""

from __future__ import annotations

import pytest

from feature_store.candle import Timeframe
from inference.domain.errors import PolicyError, SettingsError
from inference.domain.fallback import FallbackMode
from inference.domain.policy import Policy
from inference.exchange.capabilities import CAPABILITIES
from inference.policy.policy_file import read_policy
from inference.settings import VENUES, Mode, ShadowPlace, load_settings, load_shadow_settings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    for name in ("MODE", "VENUE", "VENUE_URL", "API_KEY", "API_SECRET", "SYMBOLS", "TIMEFRAME", "MLFLOW_URL", "SHADOW"):
        monkeypatch.delenv(f"QT_{name}", raising=False)
    monkeypatch.delenv("QUANTUM_HOME", raising=False)


def test_environment_is_read(monkeypatch, tmp_path):
    """Every setting has its variable, and symbols are a list joined by commas."""
    monkeypatch.setenv("QT_VENUE_URL", "http://127.0.0.1:9100")
    monkeypatch.setenv("QT_SYMBOLS", "BTC/USDT:USDT, ETH/USDT:USDT")
    monkeypatch.setenv("QT_TIMEFRAME", "1m")
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path))

    settings = load_settings()

    assert settings.mode is Mode.SANDBOX
    assert settings.symbols == ("BTC/USDT:USDT", "ETH/USDT:USDT")
    assert settings.timeframe is Timeframe.M1
    assert settings.journal == tmp_path / "journal" / "journal.jsonl"


def test_options_win_over_the_environment(monkeypatch):
    """What the command line says is not overruled by a forgotten variable; `all` means no list."""
    monkeypatch.setenv("QT_VENUE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("QT_SYMBOLS", "BTC/USDT:USDT")

    settings = load_settings(venue_url="http://127.0.0.1:2", symbols="all", mlflow_url=None)

    assert settings.venue_url == "http://127.0.0.1:2"
    assert settings.symbols == ()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        pytest.param({}, "QT_VENUE_URL", id="sandbox-without-address"),
        pytest.param({"venue": "kraken"}, "Unknown venue 'kraken'", id="unknown-venue"),
        pytest.param({"venue_url": "http://x", "timeframe": "7m"}, "Unknown timeframe '7m'", id="unknown-timeframe"),
        pytest.param({"mode": "sandbox", "venue": "binanceusdm"}, "QT_VENUE", id="sandbox-at-a-real-venue"),
        pytest.param({"venue": "sandbox-spot", "venue_url": "http://x"}, "choose QT_VENUE=sandbox", id="local-spot"),
        pytest.param({"venue": "binance", "mode": "live", "api_key": "k"}, "QT_VENUE=binanceusdm", id="real-spot"),
        pytest.param({"mode": "live"}, "contradicts QT_VENUE=sandbox", id="live-at-the-sandbox"),
        pytest.param({"mode": "live", "venue": "binanceusdm"}, "QT_API_KEY", id="live-with-the-sandbox-key"),
        pytest.param(
            {"mode": "live", "venue": "binanceusdm", "api_key": "k", "venue_url": "http://x"},
            "contradicts QT_VENUE_URL",
            id="live-at-another-address",
        ),
        pytest.param(
            {"mode": "live", "venue": "binanceusdm", "api_key": "k", "approval_file": "/no/such/file"},
            "QT_APPROVAL_FILE",
            id="a-pin-that-is-not-there",
        ),
        pytest.param({"venue_url": "http://x", "bias_mode": "block"}, "QT_BIAS_MODE", id="unknown-bias-mode"),
        pytest.param({"venue_url": "http://x", "bias_window": 0}, "QT_BIAS_WINDOW", id="no-bias-window"),
        pytest.param({"venue_url": "http://x", "bias_window": 289}, "QT_BIAS_WINDOW", id="bias-beyond-memory"),
        pytest.param({"venue_url": "http://x", "bias_share": "nan"}, "QT_BIAS_SHARE", id="bias-share-that-is-none"),
        pytest.param({"venue_url": "http://x", "bias_share": 1}, "QT_BIAS_SHARE", id="bias-share-of-all"),
        pytest.param({"venue_url": "http://x", "lease_seconds": 1}, "QT_LEASE_SECONDS", id="lease-too-short"),
        pytest.param({"venue_url": "http://x", "lease_seconds": "nan"}, "QT_LEASE_SECONDS", id="lease-without-end"),
        pytest.param({"venue_url": "http://x", "lease_wait": "perhaps"}, "QT_LEASE_WAIT", id="lease-wait-in-doubt"),
        pytest.param({"venue_url": "http://x", "metrics_port": 70000}, "QT_METRICS_PORT", id="port-that-is-none"),
        pytest.param({"mode": "testnet"}, "contradicts QT_VENUE=sandbox", id="testnet-at-the-sandbox"),
        pytest.param(
            {"mode": "testnet", "venue": "binanceusdm"},
            "of the venue's test network",
            id="testnet-with-the-sandbox-key",
        ),
        pytest.param(
            {"mode": "testnet", "venue": "bitfinex", "api_key": "k"},
            "bitfinex has no test network that ccxt knows; choose QT_VENUE=binanceusdm",
            id="testnet-of-bitfinex",
        ),
        pytest.param(
            {"mode": "testnet", "venue": "binanceusdm", "api_key": "k", "venue_url": "http://x"},
            "QT_MODE=testnet contradicts QT_VENUE_URL",
            id="testnet-at-another-address",
        ),
        pytest.param({"mode": "paper"}, "needs QT_VENUE_URL", id="paper-without-a-market"),
        pytest.param(
            {"mode": "paper", "venue": "bitfinex", "venue_url": "http://x"}, "unset QT_VENUE_URL", id="paper-elsewhere"
        ),
        pytest.param(
            {"mode": "paper", "venue": "bitfinex", "paper_balance": 0}, "QT_PAPER_BALANCE", id="paper-without-money"
        ),
        pytest.param(
            {"mode": "paper", "venue": "bitfinex", "paper_balance": "nan"},
            "QT_PAPER_BALANCE",
            id="paper-without-number",
        ),
        pytest.param({"mode": "reckless"}, "QT_MODE", id="unknown-mode"),
        pytest.param({"venue_url": "http://x", "symbols": "universe"}, "follows a list only", id="universe"),
        pytest.param({"venue_url": "http://x", "symbols": "BTC/USDT:USDT, universe"}, "qtctl universe show", id="both"),
    ],
)
def test_contradictions_refuse_to_start(given, said):
    """A contradiction is one clear sentence that names the setting to change."""
    with pytest.raises(SettingsError) as caught:
        load_settings(**given)

    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("venue", sorted(name for name, venue in CAPABILITIES.items() if not venue.positions))
@pytest.mark.parametrize("load", [load_settings, load_shadow_settings])
def test_a_venue_without_positions_is_traded_by_no_worker(venue, load, monkeypatch):
    """Whatever cannot go short or hold what only reduces is refused by the reason, in every mode, and never offered."""
    monkeypatch.setenv("QT_VENUE", venue)

    for mode in Mode:
        with pytest.raises(SettingsError, match="cannot go short") as caught:
            load(mode=mode, venue_url="http://x", mlflow_url="http://y", api_key="k")
        assert venue in str(caught.value)

    assert venue not in VENUES


def test_live_starts_with_everything_in_place(tmp_path):
    """Live needs a real venue and its keys, and then it is allowed; what may trade there is the model's affair."""
    approval = tmp_path / "approval"
    approval.write_text("0" * 64)

    settings = load_settings(
        mode="live", venue="binanceusdm", api_key="k", api_secret="s", approval_file=approval, home=tmp_path
    )

    assert settings.mode is Mode.LIVE
    assert "k" not in repr(settings.api_key)


def test_the_test_network_takes_what_live_takes_but_an_approval(tmp_path, monkeypatch):
    """With keys it starts, on a clock that is the wall's; what it computes is kept apart from the venue's market."""
    settings = load_settings(mode="testnet", venue="binanceusdm", api_key="k", api_secret="s", home=tmp_path)

    assert settings.is_test_network
    assert not settings.is_accelerated
    assert settings.fallback is FallbackMode.ENFORCE
    assert settings.shadow_place is ShadowPlace.INSIDE
    assert (settings.market, settings.venue) == ("binanceusdm-testnet", "binanceusdm")
    monkeypatch.setenv("QT_API_KEY", "k")
    assert [load_settings(mode=mode, venue="binanceusdm").market for mode in ("paper", "live")] == ["binanceusdm"] * 2


@pytest.mark.parametrize("venue", ["binanceusdm", "bitfinex"])
def test_paper_needs_no_keys(venue, tmp_path):
    """A venue's name is all that paper trading needs; what falls back does so as with real money."""
    settings = load_settings(mode="paper", venue=venue, home=tmp_path)

    assert settings.mode is Mode.PAPER
    assert (settings.paper_balance, settings.paper_file) == (10_000, tmp_path / "paper" / f"{venue}.json")
    assert settings.fallback is FallbackMode.ENFORCE
    assert not settings.is_accelerated
    assert load_settings(mode="paper", venue_url="http://x").is_accelerated


def test_real_money_shares_its_process_only_when_told_to(tmp_path, monkeypatch):
    """A challenger is scored inside the worker, with real money beside it, and where QT_SHADOW says."""
    approval = tmp_path / "approval"
    approval.write_text("0" * 64)
    live = {"mode": "live", "venue": "binanceusdm", "api_key": "k", "api_secret": "s", "approval_file": approval}

    assert load_settings(venue_url="http://x:1").shadow_place is ShadowPlace.INSIDE
    assert load_settings(**live).shadow_place is ShadowPlace.BESIDE
    monkeypatch.setenv("QT_SHADOW", "off")
    assert load_settings(**live).shadow_place is ShadowPlace.OFF


def test_a_shadow_worker_needs_a_registry_and_no_account():
    """Neither keys nor an approval are asked for; where to find the models is."""
    live = {"mode": "live", "venue": "binanceusdm"}

    assert load_shadow_settings(**live, mlflow_url="http://127.0.0.1:5000").mode is Mode.LIVE
    with pytest.raises(SettingsError, match="QT_MLFLOW_URL"):
        load_shadow_settings(**live)
    with pytest.raises(SettingsError, match="QT_API_KEY"):
        load_settings(**live, mlflow_url="http://127.0.0.1:5000")


def test_policy_file_overrides_defaults(tmp_path):
    """A rule in the file replaces the default, exactly, and the others stay."""
    file = tmp_path / "policy.toml"
    file.write_text("max_positions = 7\nrisk_per_trade = 0.02\nmax_notional = 500\nconfidence_threshold = 0.61\n")

    policy = read_policy(file)

    assert policy.max_positions == 7
    assert str(policy.risk_per_trade) == "0.02"
    assert policy.confidence_threshold == 0.61
    assert policy.cooldown_seconds == Policy().cooldown_seconds


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("max_posit = 7", "unknown rules ['max_posit']", id="unknown-rule"),
        pytest.param("max_positions = 7.5", "needs a whole number", id="fraction"),
        pytest.param("max_exposure = 'much'", "needs a number", id="text"),
        pytest.param("max_exposure = nan", "needs a number", id="nan"),
        pytest.param("leverage = 100", "leverage", id="out-of-bounds"),
        pytest.param("= 3", "is not TOML", id="no-toml"),
    ],
)
def test_bad_policy_file_is_refused(tmp_path, text, said):
    """A policy that cannot be meant is refused with the rule and the file named."""
    file = tmp_path / "policy.toml"
    file.write_text(text)

    with pytest.raises(PolicyError) as caught:
        read_policy(file)

    assert said in str(caught.value)
