"""One strategy on the same candles twice, in process and over the wire: the same orders and fills, digit for digit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from feature_store.clock import monotonic
from feature_store.extensions.settings import ViewSettings
from inference.domain.policy import Policy
from inference.models.bundle import Bundle, load_bundle
from inference.policy.policy_file import read_policy
from infra.prove.practice_bundle import practice_bundle
from infra.prove.proof import Proof, Size
from infra.prove.stage import Stage
from infra.prove.wire_candles import WireCandles, made, recorded
from infra.prove.wire_replay import first_candle_ms, market_of, replayed, said_of
from infra.prove.wire_worker import SEED, STEP_MS, Traded, kept_out, trade

SEEDS = {Size.FULL: (1, 2, 3, 4, 5), Size.CI: (1,)}
WINDOWS = {Size.FULL: 3, Size.CI: 1}
SYMBOLS = {Size.FULL: 6, Size.CI: 3}
DECISIONS = {Size.FULL: 48, Size.CI: 8}
LEAST_FILLS = {Size.FULL: 400, Size.CI: 20}
POLICY = """
confidence_threshold = 0.5
cooldown_seconds = 0
max_holding_candles = 3
stop_atr_multiple = 0.8
target_atr_multiple = 0.9
risk_per_trade = 0.002
max_notional = 1500
max_daily_drawdown = 0.15
taker_fee = 0
slippage = 0
"""
# What names a request, and what the venue says of a conditional order only while it waits.
_IDS = ("orderId", "clientOrderId", "algoId", "clientAlgoId", "actualOrderId", "id")
_PLACED = ("symbol", "side", "orderType", "quantity", "triggerPrice", "reduceOnly", "workingType", "createTime")


@dataclass(slots=True)
class _Compared:
    decisions: int = 0
    opinions: int = 0
    kept_out: int = 0
    orders: int = 0
    fills: int = 0
    funding: int = 0
    differences: list[str] = field(default_factory=list)


def prove(size: Size) -> Proof:
    """Let the real worker trade each market at a sandbox in lockstep, then replay its strategy and compare."""
    markets = [*(made(seed, SYMBOLS[size]) for seed in SEEDS[size]), *recorded(WINDOWS[size], SYMBOLS[size])]
    total, details = _Compared(), []
    with Stage("wire-parity") as stage:
        folder = practice_bundle(stage.home / "bundle")
        policy = stage.home / "policy.toml"
        policy.write_text(POLICY)
        bundle = load_bundle(folder, expected_fingerprint=ViewSettings.of().view().fingerprint())
        for number, market in enumerate(markets):
            began = monotonic()
            one = _compared(stage, market, folder, bundle, policy, DECISIONS[size], f"market-{number}")
            details.append(
                f"{market.name}: {one.decisions} candles, {one.opinions} opinions ({one.kept_out} of them heard by a "
                f"worker that was not ready), {one.orders} orders, {one.fills} fills, {one.funding} payments of "
                f"funding, {len(one.differences)} differences ({monotonic() - began:.0f} s)"
            )
            for name in ("decisions", "opinions", "orders", "fills", "funding"):
                setattr(total, name, getattr(total, name) + getattr(one, name))
            total.differences += [f"{market.name}: {difference}" for difference in one.differences]
    if len(markets) == len(SEEDS[size]):
        details.append("made candles only: MARKET_DATA_DIR names no recording that can be replayed")
    return Proof(
        name="wire-parity",
        figure=f"{total.orders} orders and {total.fills} fills in {len(markets)} markets, {total.opinions} opinions: "
        f"{len(total.differences)} differences between in process and over the wire",
        bar=f"0 differences, >= {LEAST_FILLS[size]} fills" + ("" if size is Size.CI else ", funding among it"),
        # Eight decisions of CI meet no boundary of funding.
        holds=not total.differences and total.fills >= LEAST_FILLS[size] and (size is Size.CI or total.funding > 0),
        details=(*details, *total.differences[:40]),
    )


def _compared(
    stage: Stage, candles: WireCandles, folder: Path, bundle: Bundle, policy: Path, decisions: int, name: str
) -> _Compared:
    wire = trade(stage, candles, bundle=folder, policy=policy, decisions=decisions, name=name)
    closes = [one.snapshot.candle_close_ms for one in wire.decided]
    if closes != list(range(closes[0], closes[0] + len(closes) * STEP_MS, STEP_MS)):
        return _Compared(differences=[f"the worker did not decide each candle: {closes}"])
    venue = wire.used[0].venue
    said = said_of(candles, bundle, closes, first_ms=first_candle_ms(wire.used[0]), venue=venue)
    found = _Compared(decisions=len(closes), opinions=len(said))
    for one in wire.decided:
        for candidate in one.snapshot.candidates:
            ours = said.get((one.snapshot.candle_close_ms, candidate.signal.symbol))
            if ours is None or (ours.signal, ours.row.atr, ours.row.close) != (
                candidate.signal, candidate.atr, candidate.close,
            ):  # fmt: skip
                found.differences.append(f"opinion on {candidate.signal.symbol} at {one.snapshot.candle_close_ms}")
    heard = sum(len(one.snapshot.candidates) for one in wire.decided)
    if heard != len(said):
        found.differences.append(f"{heard} opinions over the wire, {len(said)} in process")
    # What is decided at the last close is not followed to its end.
    until_ms = closes[-1]
    out = {(one.snapshot.candle_close_ms, symbol) for one in wire.decided for symbol in kept_out(one)}
    heeded = {key: one for key, one in said.items() if key not in out}
    found.kept_out = len(out)
    market = market_of(candles, heeded, threshold=bundle.threshold, seed=SEED, until_ms=until_ms + STEP_MS)
    _hold_against(found, wire, market, read_policy(policy), until_ms)
    return found


def _hold_against(found: _Compared, wire: Traded, market: Any, policy: Policy, until_ms: int) -> None:
    engine, same = replayed(market, policy)
    if not same:
        found.differences.append("the compiled engine makes other trades than the matching engine")
    for what, theirs, ours, when in (
        ("order", wire.orders, engine.orders, "time"),
        ("fill", wire.fills, engine.fills, "time"),
        ("payment of funding", wire.funding, engine.funding, "time"),
    ):
        keys = ("symbol", "income", "time") if what.startswith("payment") else None
        found.differences += _differences(what, _rows(theirs, when, until_ms, keys), _rows(ours, when, until_ms, keys))
    placed = [_rows(rows, "createTime", until_ms, _PLACED) for rows in (wire.algos, engine.algos)]
    ended = [
        _rows([one for one in rows if one["algoStatus"] != "NEW"], "updateTime", until_ms)
        for rows in (wire.algos, engine.algos)
    ]
    found.differences += _differences("conditional order", *placed)
    found.differences += _differences("end of a conditional order", *ended)
    found.orders = len(_rows(wire.orders, "time", until_ms)) + len(placed[0])
    found.fills = len(_rows(wire.fills, "time", until_ms))
    found.funding = len(_rows(wire.funding, "time", until_ms, ("symbol",)))


def _rows(
    rows: Iterable[dict[str, Any]], when: str, until_ms: int, keys: tuple[str, ...] | None = None
) -> list[tuple[tuple[str, str], ...]]:
    """Return what there was before a time, without ids, in an order of its own."""
    return sorted(
        tuple(sorted((name, _plain(one[name])) for name in (keys or one) if name not in _IDS))
        for one in rows
        if int(one[when]) < until_ms
    )


def _plain(value: Any) -> str:
    """Return a number in its shortest form: quantities come as they were sent, with trailing zeros or without."""
    try:
        return f"{Decimal(value).normalize():f}" if isinstance(value, str) else str(value)
    except InvalidOperation:
        return str(value)


def _differences(what: str, theirs: list[Any], ours: list[Any]) -> list[str]:
    wire, engine = Counter(theirs), Counter(ours)
    return [
        *(f"{what} over the wire only: {dict(one)}" for one in (wire - engine).elements()),
        *(f"{what} in process only: {dict(one)}" for one in (engine - wire).elements()),
    ]
