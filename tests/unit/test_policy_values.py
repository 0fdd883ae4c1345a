"""Rules as files, people and machines write them: read exactly, or refused with what would do."""

from __future__ import annotations

import json
import tempfile
from dataclasses import fields, replace
from decimal import Decimal
from pathlib import Path

import jsonschema
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inference.domain.errors import PolicyError
from inference.domain.policy import EntryStyle, Policy, policy_rules
from inference.domain.policy_rules import Bounds, Section
from inference.policy.policy_file import policy_text, read_policy
from inference.policy.profiles import PROFILES, profile
from inference.policy.schema import policy_schema
from inference.policy.values import ALIASES, in_sections, kind_of, plain, policy_of, value_of_text, value_text

SCHEMA = jsonschema.Draft202012Validator(policy_schema())
NUMBERS = [name for name, about in policy_rules().items() if about.bounds is not None]


@pytest.mark.parametrize(
    ("policy", "fingerprint"),
    [
        pytest.param(Policy(), "39015e9d57d0ff2dcbdab50e9ad9b1d7e6739e93856b793823e2272170e176c6", id="default"),
        pytest.param(
            Policy(leverage=2, entry_style=EntryStyle.LIMIT, stop_atr_multiple=Decimal("2.50")),
            "ceebe7843a67a09691a474490a22e39aba57ccc1dfe964b8d4689356a23e9e97",
            id="changed",
        ),
    ],
)
def test_fingerprints_of_before_stay(policy, fingerprint):
    """What was decided under a policy before there were more rules was decided under the same one."""
    assert policy.fingerprint == fingerprint


def test_a_default_in_other_digits_is_the_default_to_the_digit():
    """A record leaves it out and reads the default: what a refusal then says of it must be the same text."""
    said = Policy(wall_peak_drawdown=Decimal("0.200"), min_risk_per_trade=Decimal("0.000"))

    assert [str(said.wall_peak_drawdown), str(said.min_risk_per_trade)] == ["0.20", "0"]
    assert (said, said.fingerprint) == (Policy(), Policy().fingerprint)


def test_each_later_rule_changes_the_fingerprint_and_only_where_it_says_something():
    """A record states a later rule where it differs from its default, and then it is another policy."""
    changed = {
        "max_weekly_drawdown": Decimal("0.05"),
        "trading_windows": ("mon 00:00-24:00",),
        "max_btc_beta": Decimal("1.5"),
        "max_entries_per_day": 0,
        "governor_min_confidence": 0.6,
    }
    found = {name: replace(Policy(), **{name: value}) for name, value in changed.items()}

    assert len({one.fingerprint for one in found.values()} | {Policy().fingerprint}) == len(changed) + 1
    assert all(set(one.stated()) - set(Policy().stated()) == {name} for name, one in found.items())


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("max_weekly_drawdown", Decimal("0.06")), ("wall_daily_drawdown", Decimal("0.15")),
        ("wall_weekly_drawdown", Decimal("0.25")), ("wall_peak_drawdown", Decimal("0.2")),
        ("warn_daily_drawdown", Decimal("0.02")), ("min_risk_per_trade", Decimal(0)),
        ("max_risk_per_trade", Decimal("0.05")), ("min_size_multiplier", Decimal(1)),
        ("max_size_multiplier", Decimal(1)), ("kelly_fraction", None), ("min_liquidation_stops", Decimal(3)),
        ("correlation_threshold", Decimal("0.7")), ("max_correlated_exposure", None),
        ("max_btc_beta", None), ("governor_min_confidence", 0.5), ("global_cooldown_seconds", 0),
        ("loss_cooldown_seconds", 0), ("max_entries_per_hour", None), ("trading_windows", ()),
        ("bias_window", 20), ("bias_share", 0.7),
    ],
)  # fmt: skip
def test_defaults_of_later_rules_do_not_change(name, default):
    """A journal leaves out what is at its default: another default would change what was decided long ago."""
    assert {one.name: one.default for one in fields(Policy)}[name] == default


@given(st.data())
def test_every_rule_is_read_as_it_was_written(data):
    """Text of a command line, TOML, JSON and sections give the same value back, to the last digit."""
    name = data.draw(st.sampled_from(NUMBERS))
    bounds, (kind, _) = policy_rules()[name].bounds, kind_of(name)
    low = max(bounds.low, Decimal(0))
    high = min(bounds.high, low + 1000)
    if kind is int:
        value = data.draw(st.integers(int(low), int(high)))
    else:
        value = data.draw(st.decimals(low, high, places=6))
        value = value if kind is Decimal else float(value)
    try:
        policy = replace(Policy(), **{name: value})
    except PolicyError:
        return

    assert value_of_text(name, value_text(value)) == value
    assert policy_of(json.loads(json.dumps(plain(policy)))) == policy
    assert policy_of(in_sections(policy)) == policy
    SCHEMA.validate(in_sections(policy))
    with tempfile.TemporaryDirectory() as folder:
        for file, text in (("p.toml", policy_text(policy)), ("p.json", json.dumps({"rules": in_sections(policy)}))):
            (Path(folder) / file).write_text(text)
            assert read_policy(Path(folder) / file) == policy


@given(
    name=st.sampled_from(NUMBERS),
    value=st.integers(-5, 5)
    | st.floats(-2, 700, width=32)
    | st.floats(-1e-14, 1e-14)
    | st.sampled_from([2**40, 1, 10**15, 10**15 + 1, 1e-15, 0.0]),
)
@example(name="min_notional", value=2.220446049250313e-16)
def test_the_schema_says_what_the_policy_takes(name, value):
    """Two ways to check one number agree, apart from what only shows beside other rules."""
    section = policy_rules()[name].section.value
    document = {section: {name: value}}
    try:
        policy_of(document)
        refused = ""
    except PolicyError as error:
        refused = str(error)
    if "must not exceed" in refused:
        return

    # A whole number is one to JSON however it is written; a policy wants it written as one.
    if kind_of(name)[0] is int and isinstance(value, float):
        assert refused
    else:
        assert SCHEMA.is_valid(document) is not bool(refused), refused


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_hold_and_differ(name):
    """Each profile is a policy that a file, the schema and a record keep."""
    found = profile(name).policy

    SCHEMA.validate(in_sections(found))
    assert policy_of(plain(found)) == found
    assert len({one.policy.fingerprint for one in PROFILES.values()}) == len(PROFILES)


def test_the_source_profile_holds_the_figures_of_the_source_and_the_default_is_safer():
    """The source's figures as far as they agree with themselves; ten percent of equity a trade do not."""
    source, default = profile("source").policy, profile("default").policy

    assert (source.leverage, source.max_positions, source.cooldown_seconds) == (30, 20, 120)
    assert (source.min_notional, source.max_notional, source.max_exposure) == (100, 2000, 2)
    assert (source.max_daily_drawdown, source.max_weekly_drawdown) == (Decimal("0.15"), Decimal("0.25"))
    assert (source.min_risk_per_trade, source.max_risk_per_trade) == (Decimal("0.01"), Decimal("0.05"))
    assert (source.confidence_threshold, source.governor_min_confidence) == (0.7, 0.6)
    assert (source.correlation_threshold, source.governor_max_companions) == (Decimal("0.7"), 0)
    assert (source.max_symbols, source.min_volume_24h, source.min_liquidity) == (100, 1_000_000, 50_000)
    with pytest.raises(PolicyError, match=r"risk_per_trade must lie in \(0, 0.05\], was 0.10"):
        replace(source, risk_per_trade=Decimal("0.10"))
    assert default == Policy()
    assert default.risk_per_trade == Decimal("0.01")
    assert default.leverage <= 3
    assert default.max_portfolio_heat == Decimal("0.06")
    walls = default.wall_daily_drawdown, default.wall_weekly_drawdown, default.wall_peak_drawdown
    assert walls == (Decimal("0.15"), Decimal("0.25"), Decimal("0.20"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("max_positon = 3", "did you mean max_positions", id="misspelt"),
        pytest.param("[risk]\ntrading_windows = []", "did you mean constraints.trading_windows", id="other-section"),
        pytest.param("[risk]\nleverage = 2\n[policy]\nleverage = 3", "beside policy", id="beside-policy"),
        pytest.param("leverage = 2\n[risk]\nmax_leverage = 3", "says leverage twice", id="twice-by-alias"),
        pytest.param("max_notional = inf", "needs a number in (0, inf)", id="infinite"),
        pytest.param('max_notional = "1e400"', "needs a number", id="absurd"),
        pytest.param("max_notional = 1e-300", "needs a number", id="too-fine"),
        pytest.param("cooldown_seconds = 99999999999999999", "needs a whole number", id="too-many-digits"),
        pytest.param("max_notional = true", "needs a number", id="boolean"),
        pytest.param("max_notional = [1]", "needs a number", id="list"),
        pytest.param("max_notional = 2026-11-30", "needs a number", id="date"),
        pytest.param("leverage = 3.0", "needs a whole number in [1, 30]", id="fraction"),
        pytest.param('leverage = "none"', "needs a whole number", id="no-limit-there"),
        pytest.param("denied_symbols = 'BTC'", "needs a list of names", id="no-list"),
        pytest.param("denied_symbols = ['a,b']", "needs a list of names", id="comma"),
        pytest.param("denied_symbols = [1]", "needs a list of names", id="number-in-list"),
        pytest.param("allowed_symbols = ['A']\ndenied_symbols = ['A']", "both name A", id="allowed-and-denied"),
        pytest.param('bias_mode = "maybe"', '"observe" or "enforce"', id="unknown-word"),
        pytest.param("risk_per_trade = 0.04\nmax_portfolio_heat = 0.03", "must not exceed", id="contradiction"),
        pytest.param("max_risk_per_trade = 0.005", "risk_per_trade must not exceed max_risk", id="base-above-maximum"),
        pytest.param("min_risk_per_trade = 0.02", "must not exceed risk_per_trade", id="minimum-above-base"),
        pytest.param("max_daily_drawdown = 0.2", "must lie in (0, 0.15], was 0.2", id="outside"),
        pytest.param("wall_daily_drawdown = 0.02", "must not exceed wall_daily_drawdown", id="limit-behind-wall"),
        pytest.param("max_entries_per_hour = 5\nmax_entries_per_day = 4", "must not exceed", id="hour-above-day"),
        pytest.param('universe_mode = "list"', "needs allowed_symbols", id="list-of-none"),
        pytest.param("policy = 3", "must be a table", id="policy-is-no-table"),
        pytest.param("a" * 2_000_000, "more than 1000000 bytes", id="huge"),
        pytest.param("a = " + "[" * 5000, "is not TOML", id="deep"),
        pytest.param("leverage = 2\nleverage = 3", "is not TOML", id="twice"),
        pytest.param(b"\xff\xfe".decode("latin-1"), "is not TOML", id="binary"),
    ],
)
def test_hostile_toml_is_refused_with_what_would_do(tmp_path, text, said):
    """Whatever stands in a file, it is a policy or a sentence."""
    file = tmp_path / "policy.toml"
    file.write_text(text, encoding="latin-1")

    with pytest.raises(PolicyError) as caught:
        read_policy(file)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "must hold a table"),
        ('{"leverage": 2, "leverage": 3}', "is said twice"),
        ('{"max_notional": NaN}', "NaN is no number"),
        ('{"max_notional": Infinity}', "Infinity is no number"),
        ('{"max_notional": null}', "needs a number"),
        ('{"rules": {"risk": {"leverage": {"a": {"b": {"c": 1}}}}}}', "names unknown rules"),
        ('{"leverage": "3"}', "needs a whole number"),
        ("[" * 100_000, "is not JSON"),
        ("\ud800", "is not JSON"),
    ],
)
def test_hostile_json_is_refused_with_what_would_do(tmp_path, text, said):
    """JSON is held to what TOML is held to."""
    file = tmp_path / "policy.json"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))

    with pytest.raises(PolicyError) as caught:
        read_policy(file)
    assert said in str(caught.value)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=5), st.lists, max_leaves=4))
def test_no_value_of_any_rule_is_more_than_refused(value):
    """Any JSON value under any rule's name is taken or refused; nothing else comes of it."""
    said = ""
    for name in policy_rules():
        try:
            said = policy_of({name: value}).fingerprint
        except PolicyError as error:
            said = str(error)
        assert said


def test_names_of_older_documents_are_understood():
    """What the documents call a rule is that rule; each name means one that there is."""
    assert policy_of({"risk": {"max_leverage": 5, "max_position_usd": 300}}) == Policy(
        leverage=5, max_notional=Decimal(300)
    )
    assert policy_of({"universe": {"filters": {"blacklist": ["LUNA", "FTT/USDT:USDT"]}}}) == Policy(
        denied_symbols=("LUNA", "FTT/USDT:USDT")
    )
    with pytest.raises(PolicyError, match="says denied_symbols twice"):
        policy_of({"denied_symbols": ["A"], "universe": {"filters": {"blacklist": ["B"]}}})
    assert set(ALIASES.values()) <= set(policy_rules())
    assert {about.section for about in policy_rules().values()} == set(Section)


@pytest.mark.parametrize("text", ["", "0, 1", "[1, 0]", "(a, b)", "[0,1]", "(0, 1"])
def test_bounds_that_are_none_are_refused(text):
    """A slip in a rule's declaration shows as the program starts."""
    with pytest.raises(ValueError, match="Bounds"):
        Bounds.parse(text)


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [("(0, 1]", ["0.1", "1"], ["0", "1.01", "NaN", "Infinity"]), ("[0, inf)", ["0", "9e9"], ["-1", "Infinity"])],
)
def test_bounds_leave_out_what_a_parenthesis_leaves_out(text, inside, outside):
    """Ends are in or out as written; what is not finite is nowhere."""
    bounds = Bounds.parse(text)

    assert all(bounds.hold(Decimal(one)) for one in inside)
    assert not any(bounds.hold(Decimal(one)) for one in outside)
