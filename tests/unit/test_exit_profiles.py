"""Exit profiles as data: those built in, those a person writes, and what is refused, with words that help."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.domain.errors import PolicyError
from inference.domain.exit_profile import BUILT_IN, CHALLENGE_100, DEFAULT, ExitProfile, Target
from inference.exits.profile_text import profile_named, profiles_of
from inference.policy.exit_profiles import read_exit_profiles

D = Decimal
PATIENT = """
[profiles.PATIENT]
stop_atr = 2.5
targets = [{ r = 1, share = 0.25 }, { atr = 5, share = 0.25 }]
break_even_after = 1
break_even_margin = 0.001
trail_atr = 3
trail_after_target = 2
time_stop_candles = 48
"""


def test_the_built_in_profiles_are_the_specifications():
    """EX-019 to EX-026, as figures: what a person reads in the document is what the profiles hold."""
    assert set(BUILT_IN) == {"DEFAULT", "CHALLENGE_100"}
    assert [(one.r, one.share) for one in DEFAULT.targets] == [(D("1.5"), D(1))]
    assert (DEFAULT.trail_atr, DEFAULT.time_stop_candles, DEFAULT.break_even_after) == (D(2), None, 0)
    assert [(one.r, one.share) for one in CHALLENGE_100.targets] == [(D(1), D("0.3")), (D(2), D("0.7"))]
    assert (CHALLENGE_100.stop_cap_r, CHALLENGE_100.time_stop_candles) == (D("1.5"), 24)
    assert (CHALLENGE_100.break_even_after, CHALLENGE_100.trail_after_target) == (1, 1)
    assert all(one.liquidation_buffer == D("0.01") and one.liquidation_buffer_atr > 0 for one in BUILT_IN.values())


def test_a_person_writes_a_profile(tmp_path):
    """A TOML file adds a profile to those built in; what it leaves out keeps its default, numbers stay exact."""
    path = tmp_path / "exits.toml"
    path.write_text(PATIENT)
    profiles = read_exit_profiles(path)
    patient = profile_named("PATIENT", profiles)

    assert set(profiles) == {"DEFAULT", "CHALLENGE_100", "PATIENT"}
    assert patient.stop_atr == D("2.5")
    assert patient.targets == (Target(r=D(1), share=D("0.25")), Target(atr=D(5), share=D("0.25")))
    assert patient.target_multiples == (D("2.5"), D(5))
    assert patient.has_runner
    assert patient.liquidation_buffer == D("0.01")
    assert read_exit_profiles(None) == BUILT_IN


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("stop_atr = 0", "stop_atr must lie in [0.01, 100], was 0"),
        ("stop_atr = -1", "stop_atr must lie in [0.01, 100], was -1"),
        ("stop_atr = nan", "stop_atr needs a number of at most 15 digits, was Decimal('NaN')"),
        ("stop_atr = inf", "stop_atr needs a number of at most 15 digits"),
        ("stop_atr = 1e400", "stop_atr needs a number of at most 15 digits"),
        ("stop_atr = 1e-400", "stop_atr needs a number of at most 15 digits"),
        ("stop_atr = 3.00000000000000000001", "stop_atr needs a number of at most 15 digits"),
        ('stop_atr = "3"', "stop_atr needs a number of at most 15 digits, was '3'"),
        ("stop_atr = true", "stop_atr needs a number of at most 15 digits, was True"),
        ("stop_art = 3", "names an unknown rule 'stop_art'; did you mean stop_atr?"),
        ("name = 3", "names an unknown rule 'name'"),
        ("zzz = 3", "names an unknown rule 'zzz'; known are break_even_after"),
        ("break_even_after = 1.5", "Expected `int`"),
        ("break_even_after = 1", "break_even_after names target 1, after which nothing is left, or which it lacks"),
        ("break_even_after = -1", "break_even_after must lie in [0, 4], was -1"),
        ("break_even_margin = 0.06", "break_even_margin must lie in [0, 0.05], was 0.06"),
        ("break_even_margin = 0.000000001", "break_even_margin must have at most 8 decimal places"),
        ("trail_atr = 0.001", "trail_atr must lie in [0.01, 100], was 0.001"),
        ("trail_after_r = 1", "it says when to trail, and not how far: set trail_atr"),
        ("trail_atr = 1\ntrail_after_target = 1", "trail_after_target names target 1, after which nothing is left"),
        ("time_stop_candles = 0", "time_stop_candles must lie in [1, 10000], was 0"),
        ("stop_cap_r = 0.9", "stop_cap_r must lie in [1, 10], was 0.9"),
        ("liquidation_buffer = 0.5", "liquidation_buffer must lie in [0, 0.5), was 0.5"),
        ("liquidation_buffer = 0\nliquidation_buffer_atr = 0", "needs a buffer before liquidation"),
        ("targets = 3", "targets must be a list of tables"),
        ("targets = [3]", "targets must be a list of tables"),
        ("targets = [{ r = 1 }]", "missing required field `share`"),
        ("targets = [{ share = 1 }]", "target 1 needs its distance in one unit, r or atr"),
        ("targets = [{ r = 1, atr = 1, share = 1 }]", "target 1 needs its distance in one unit, r or atr"),
        ("targets = [{ r = 1, share = 1.1 }]", "target 1: share must lie in (0, 1], was 1.1"),
        ("targets = [{ r = 1, share = 0 }]", "target 1: share must lie in (0, 1], was 0"),
        ("targets = [{ r = 0, share = 1 }]", "target 1: r must lie in [0.01, 1000], was 0"),
        ("targets = [{ r = nan, share = 1 }]", "target 1: r needs a number"),
        ("targets = [{ r = 1, shares = 1 }]", "target 1 names an unknown rule 'shares'; did you mean share?"),
        ("targets = [{ r = 1, share = 0.123456789 }]", "target 1: share must have at most 8 decimal places"),
        ("targets = [{ r = 1, share = 0.6 }, { r = 2, share = 0.5 }]", "must not exceed 1 together, were 1.1"),
        ("targets = [{ r = 2, share = 0.5 }, { r = 2, share = 0.5 }]", "each target must lie beyond the one before"),
        ("targets = [{ r = 1, share = 0.5 }, { atr = 2, share = 0.5 }]", "each target must lie beyond the one before"),
        (f"targets = [{', '.join(f'{{ r = {n}, share = 0.1 }}' for n in range(1, 6))}]", "at most 4, were 5"),
        ("", ""),
    ],
)
def test_a_profile_that_cannot_be_meant_is_refused(rules, said):
    """The message names the profile, the rule, what it needs and what it was; an empty profile is the defaults."""
    text = f"[profiles.MINE]\n{rules}\n"
    if not said:
        assert profiles_of(text)["MINE"] == ExitProfile(name="MINE")
        return
    with pytest.raises(PolicyError) as refused:
        profiles_of(text, "Exit profiles mine.toml")

    assert said in str(refused.value)
    assert "MINE" in str(refused.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[profiles.DEFAULT]\nstop_atr = 1", "profile DEFAULT is built in; give yours another name"),
        ("[profiles.small]\nstop_atr = 1", "needs capitals, digits and underscores, at most 40, was 'small'"),
        ("[profile.MINE]\nstop_atr = 1", "names an unknown rule 'profile'; did you mean profiles?"),
        ("profiles = 3", "must be at most 50 tables"),
        ("[profiles]\nMINE = 3", "must be a table of rules, was 3"),
        ("[profiles.MINE\n", "are not TOML"),
        ("a = " + "[" * 5000, "are not TOML"),
        ("[profiles.MINE]\nstop_atr = 1\nstop_atr = 2", "are not TOML"),
        ("\n".join(f"[profiles.P{n}]" for n in range(51)), "must be at most 50 tables"),
    ],
)
def test_a_file_that_is_none_of_profiles_is_refused(text, said):
    """Other tables, other names, broken TOML, a profile that would take the place of a built-in one."""
    with pytest.raises(PolicyError, match=r"^(Exit|An exit)") as refused:
        profiles_of(text)

    assert said in str(refused.value)


def test_a_file_that_cannot_be_read_is_said_so(tmp_path):
    """A missing file, a folder, one of another encoding and one that is far too long are refused with what to do."""
    strange, long = tmp_path / "strange.toml", tmp_path / "long.toml"
    strange.write_bytes(b"\xff\xfe")
    long.write_text("#" * 1_000_001)
    for path in (tmp_path / "none.toml", tmp_path, strange, long):
        with pytest.raises(PolicyError, match="name a file of profiles"):
            read_exit_profiles(path)


def test_a_profile_that_there_is_not_names_the_nearest():
    """Who misspells a profile is told which one is near, or which there are."""
    with pytest.raises(PolicyError, match="did you mean DEFAULT"):
        profile_named("DEFALT")
    with pytest.raises(PolicyError, match="known are CHALLENGE_100, DEFAULT"):
        profile_named("zzzz")


@given(st.text(max_size=200))
def test_whatever_the_text_it_is_read_or_refused(text):
    """No text does anything but give profiles, the built-in ones among them, or a refusal."""
    try:
        profiles = profiles_of(f"[profiles.MINE]\n{text}")
    except PolicyError:
        return
    assert set(BUILT_IN) <= set(profiles)
