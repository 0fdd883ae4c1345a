"""What the doctor asks over the network: the venue and its clock, Prefect and MLflow."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime

import aiohttp

from feature_store.clock import monotonic, utc_now
from infra.stack.checks import Finding, Level
from infra.stack.record import StackRecord
from infra.stack.services import MLFLOW, PREFECT, SANDBOX

_TIMEOUT = aiohttp.ClientTimeout(total=8.0)
# A venue accepts a signed request for five seconds around its own time.
_OFFSET_WARN_MS, _OFFSET_FAIL_MS = 1000.0, 4000.0


@dataclass(frozen=True, slots=True)
class VenueClock:
    """Where a venue tells its time; without a field for it, the answer's Date header does."""

    url: str
    field: str | None


_CLOCKS: Mapping[str, VenueClock] = {
    "binanceusdm": VenueClock("https://fapi.binance.com/fapi/v1/time", "serverTime"),
    "binance": VenueClock("https://api.binance.com/api/v3/time", "serverTime"),
    "bitfinex": VenueClock("https://api-pub.bitfinex.com/v2/platform/status", None),
}


# What the worker trades in QT_MODE=testnet; flows ask the venue itself all the same.
_TEST_CLOCKS: Mapping[str, VenueClock] = {
    "binanceusdm": VenueClock("https://demo-fapi.binance.com/fapi/v1/time", "serverTime"),
}


# One process speaks all of them, and tells its time in one place.
_SANDBOXES = ("sandbox", "sandbox-bitfinex")


async def venue(record: StackRecord | None) -> Finding:
    """The configured venue answers, and its clock agrees with ours."""
    name = os.environ.get("QT_VENUE") or "sandbox"
    is_test = os.environ.get("QT_MODE") == "testnet" and name in _TEST_CLOCKS
    check = f"venue {name}, test network" if is_test else f"venue {name}"
    is_local = name in _SANDBOXES
    if is_local:
        url = os.environ.get("QT_VENUE_URL") or _recorded(record, SANDBOX)
        if url is None:
            return Finding(check, Level.OK, "not running", "qtctl up starts it")
        clock = VenueClock(f"{url}/fapi/v1/time", "serverTime")
    elif name in _CLOCKS:
        clock = _TEST_CLOCKS[name] if is_test else _CLOCKS[name]
    else:
        mend = f"set QT_VENUE to one of: {', '.join((*_SANDBOXES, *_CLOCKS))}"
        return Finding(check, Level.FAIL, "unknown venue", mend)
    try:
        offset_ms, round_trip_ms = await _clock_offset_ms(clock)
    except (aiohttp.ClientError, TimeoutError, ValueError, KeyError) as error:
        mend = "qtctl up" if is_local else "check the network, a proxy, or whether the venue blocks this place"
        return Finding(check, Level.FAIL, f"{clock.url}: {error or type(error).__name__}", mend)
    if is_local:
        return Finding(
            check, Level.OK, f"answers in {round_trip_ms:.0f} ms; its clock is its own (worker and flows ask it)"
        )
    return _judge_offset(check, offset_ms, round_trip_ms)


def _judge_offset(check: str, offset_ms: float, round_trip_ms: float) -> Finding:
    found = f"answers in {round_trip_ms:.0f} ms; our clock is {offset_ms:+.0f} ms from the venue's"
    mend = "switch time synchronisation on: timedatectl set-ntp true"
    if abs(offset_ms) >= _OFFSET_FAIL_MS:
        return Finding(check, Level.FAIL, found, mend)
    if abs(offset_ms) >= _OFFSET_WARN_MS:
        return Finding(check, Level.WARN, found, mend)
    return Finding(check, Level.OK, found)


async def _clock_offset_ms(clock: VenueClock) -> tuple[float, float]:
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
        started = monotonic()
        async with session.get(clock.url) as response:
            response.raise_for_status()
            round_trip_s = monotonic() - started
            ours = utc_now()
            theirs_ms = await _time_in(response, clock)
    middle_ms = ours.timestamp() * 1000 - round_trip_s * 500
    return middle_ms - theirs_ms, round_trip_s * 1000


async def _time_in(response: aiohttp.ClientResponse, clock: VenueClock) -> float:
    if clock.field is not None:
        return float((await response.json(content_type=None))[clock.field])
    # The header has whole seconds; half of one is its middle.
    told: datetime = parsedate_to_datetime(response.headers["Date"])
    return told.timestamp() * 1000 + 500


async def servers(record: StackRecord | None) -> list[Finding]:
    """Prefect and MLflow answer where the stack, or the environment, says they are."""
    api = os.environ.get("PREFECT_API_URL", "").removesuffix("/api") or None
    targets = (
        ("Prefect", api or _recorded(record, PREFECT), "/api/health"),
        ("MLflow", os.environ.get("QT_MLFLOW_URL") or _recorded(record, MLFLOW), "/health"),
    )
    return [await _server(name, url, path) for name, url, path in targets]


async def _server(name: str, url: str | None, path: str) -> Finding:
    if url is None:
        return Finding(name, Level.OK, "not running", "qtctl up starts it")
    try:
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as session, session.get(f"{url}{path}") as response:
            if response.status < 400:
                return Finding(name, Level.OK, f"answers at {url}")
            found = f"{url} answered {response.status}"
    except (aiohttp.ClientError, TimeoutError) as error:
        found = f"{url}: {error or type(error).__name__}"
    return Finding(name, Level.FAIL, found, "qtctl up starts it; its log is in QUANTUM_HOME/logs")


def _recorded(record: StackRecord | None, name: str) -> str | None:
    known = record.services.get(name) if record else None
    return known.url if known else None
