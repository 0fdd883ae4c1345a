"""One strategy on the same candles twice, in process and over the wire: the same orders and fills, digit for digit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from msgspec import UNSET

from feature_store.clock import monotonic
from feature_store.extensions.settings import ViewSettings
from inference.models.bundle import Bundle, load_bundle
from inference.policy.policy_file import read_policy
from infra.prove.practice_bundle import practice_bundle
from infra.prove.proof import Proof, Size
from infra.prove.stage import Stage
from infra.prove.wire_candles import WireCandles, made, recorded
from infra.prove.wire_compared import Compared, hold_against
from infra.prove.wire_entries import RESTING, compare_entries
from infra.prove.wire_replay import first_candle_ms, market_of, replayed, said_of
from infra.prove.wire_worker import SEED, STEP_MS, kept_out, trade

SEEDS = {Size.FULL: (1, 2, 3, 4, 5), Size.CI: (1,)}
WINDOWS = {Size.FULL: 3, Size.CI: 1}
SYMBOLS = {Size.FULL: 6, Size.CI: 3}
DECISIONS = {Size.FULL: 48, Size.CI: 8}
# Markets in which entries that rest are worked, too.
ENTERED = {Size.FULL: 2, Size.CI: 1}
ENTRIES_FOR = {Size.FULL: 20, Size.CI: 6}
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


def prove(size: Size) -> Proof:
    """Let the real worker trade each market at a sandbox in lockstep, then replay its strategy and compare."""
    markets = [*(made(seed, SYMBOLS[size]) for seed in SEEDS[size]), *recorded(WINDOWS[size], SYMBOLS[size])]
    total, details = Compared(), []
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
            total.add(one, market.name)
        traded = total.fills
        for number, market in enumerate(markets[: ENTERED[size]]):
            for style in RESTING:
                one = compare_entries(stage, market, style, decisions=ENTRIES_FOR[size], name=f"{style}-{number}")
                details.append(
                    f"{market.name}, {style} entries worked by the executor at each price: {one.orders} orders, "
                    f"{one.fills} fills, {len(one.differences)} differences"
                )
                total.add(one, f"{market.name}, {style}")
    if len(markets) == len(SEEDS[size]):
        details.append("made candles only: MARKET_DATA_DIR names no recording that can be replayed")
    return Proof(
        name="wire-parity",
        figure=f"{total.orders} orders and {total.fills} fills in {len(markets)} markets, {total.opinions} opinions: "
        f"{len(total.differences)} differences between in process and over the wire",
        bar=f"0 differences, >= {LEAST_FILLS[size]} fills" + ("" if size is Size.CI else ", funding among it"),
        # Eight decisions of CI meet no boundary of funding.
        holds=not total.differences and traded >= LEAST_FILLS[size] and (size is Size.CI or total.funding > 0),
        details=(*details, *total.differences[:40]),
    )


def _compared(
    stage: Stage, candles: WireCandles, folder: Path, bundle: Bundle, policy: Path, decisions: int, name: str
) -> Compared:
    wire = trade(stage, candles, bundle=folder, policy=policy, decisions=decisions, name=name)
    closes = [one.snapshot.candle_close_ms for one in wire.decided]
    if closes != list(range(closes[0], closes[0] + len(closes) * STEP_MS, STEP_MS)):
        return Compared(differences=[f"the worker did not decide each candle: {closes}"])
    venue = wire.used[0].venue
    said = said_of(candles, bundle, closes, first_ms=first_candle_ms(wire.used[0]), venue=venue)
    found = Compared(decisions=len(closes), opinions=len(said))
    for one in wire.decided:
        for candidate in one.snapshot.candidates:
            ours = said.get((one.snapshot.candle_close_ms, candidate.signal.symbol))
            # What is to be said against it hangs on quotes and clocks, which are not the same twice.
            theirs = replace(candidate.signal, quality=UNSET)
            if ours is None or (ours.signal, ours.row.atr, ours.row.close) != (
                theirs, candidate.atr, candidate.close,
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
    engine, same = replayed(market, read_policy(policy))
    if not same:
        found.differences.append("the compiled engine makes other trades than the matching engine")
    hold_against(found, wire, engine, until_ms)
    return found
