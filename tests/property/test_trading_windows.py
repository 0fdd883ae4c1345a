from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inference.domain.errors import PolicyError
from inference.domain.policy import Policy
from inference.domain.trading_window import TradingWindow, is_open, moment_text

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MONDAY = datetime(2026, 11, 30, tzinfo=UTC)
moments = st.integers(0, 7 * 10**9).map(lambda seconds: datetime.fromtimestamp(seconds, tz=UTC))
minutes = st.integers(0, 24 * 60)


def ms(moment):
    return int(moment.timestamp() * 1000)


def hours(minute):
    return f"{minute // 60:02}:{minute % 60:02}"


@given(moments, st.integers(0, 6), st.integers(0, 6), minutes, minutes)
@example(MONDAY, 6, 6, 22 * 60, 2 * 60)
def test_a_window_holds_what_a_calendar_says(moment, first, last, begins, ends):
    """Weekdays and hours are read as a calendar reads them, past Sunday and past midnight too."""
    if begins in (ends, 24 * 60):
        return
    window = TradingWindow.parse(f"{DAYS[first]}-{DAYS[last]} {hours(begins)}-{hours(ends)}")
    days = {(first + step) % 7 for step in range((last - first) % 7 + 1)}
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    expected = False
    for day in (midnight, midnight - timedelta(days=1)):
        start, end = day + timedelta(minutes=begins), day + timedelta(minutes=ends + (0 if ends > begins else 24 * 60))
        expected |= day.weekday() in days and start <= moment < end

    assert window.holds(ms(moment)) is expected


@given(st.text(max_size=30))
def test_a_text_is_a_window_or_says_how_to_write_one(text):
    """Whatever is written, it is understood or refused with the form; nothing else happens."""
    try:
        said = f"window of {len(TradingWindow.parse(text).days)} days"
    except PolicyError as error:
        said = str(error)

    assert said.startswith("window of") or "mon-fri 08:00-20:00" in said


@pytest.mark.parametrize(
    ("windows", "days_off", "moment", "expected"),
    [
        pytest.param((), (), MONDAY, True, id="no-windows-no-limit"),
        pytest.param(("mon-fri 08:00-20:00",), (), MONDAY.replace(hour=8), True, id="begin-is-in"),
        pytest.param(("mon-fri 08:00-20:00",), (), MONDAY.replace(hour=20), False, id="end-is-out"),
        pytest.param(("sat 00:00-24:00", "mon 01:00-02:00"), (), MONDAY.replace(hour=1), True, id="one-of-several"),
        pytest.param((), ("2026-11-30",), MONDAY.replace(hour=23, minute=59), False, id="day-off"),
        pytest.param(("mon 00:00-24:00",), ("2026-11-30",), MONDAY, False, id="day-off-wins"),
        pytest.param((), ("2026-11-30",), MONDAY + timedelta(days=1), True, id="the-day-after"),
    ],
)
def test_windows_and_days_off_together(windows, days_off, moment, expected):
    """Entries are allowed in any of the windows, and never on a day off."""
    assert is_open(ms(moment), windows=windows, days_off=days_off) is expected


@pytest.mark.parametrize(
    "changes",
    [
        {"trading_windows": ("always",)},
        {"trading_windows": ("mon 25:00-26:00",)},
        {"trading_windows": ("mon 08:60-09:00",)},
        {"trading_windows": ("abc 08:00-09:00",)},
        {"trading_windows": ("mon 08:00-08:00",)},
        {"days_off": ("Christmas",)},
        {"days_off": ("2026-13-01",)},
    ],
)
def test_a_policy_refuses_times_that_there_are_not(changes):
    """A window or a day that cannot be meant is refused where the policy is made."""
    with pytest.raises(PolicyError, match=r"Trading window|Day off"):
        Policy(**changes)


@given(st.integers(-(10**18), 10**18))
def test_any_moment_can_be_said(now_ms):
    """A clock that went mad is named in a refusal, not a reason to fail."""
    assert moment_text(now_ms)
    assert is_open(now_ms, windows=("mon-sun 00:00-24:00",), days_off=("2026-12-25",)) in (True, False)
