"""What a day came to, from that day's rows: exact sums, and the ratios that people compare days by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

from inference.domain.exact import product, total

_DIGITS = Decimal("0.0000000001")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedTrade:
    """What performance needs of a trade that ended on the day; money is quote currency, `pnl` net of fees."""

    is_entered: bool
    pnl: Decimal
    fees: Decimal
    roi: Decimal | None
    notional: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Equity at a moment of the day, and how far below its peak, as a fraction."""

    equity: Decimal
    drawdown: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The account as a decision found it."""

    equity: Decimal
    exposure: Decimal
    approved: int
    denied: int


def notional_of(entry_price: Decimal | None, quantity: Decimal | None) -> Decimal:
    """Return what a trade was entered for, in quote currency; zero where it never was."""
    return Decimal(0) if entry_price is None or quantity is None else product(entry_price, quantity)


def day_row(
    day: date,
    *,
    trades: Sequence[ClosedTrade],
    funding: Iterable[Decimal],
    marks: Sequence[Mark],
    standings: Sequence[Standing],
) -> dict[str, Any]:
    """
    Return the day's row. Trades count on the day that they closed; marks and standings come in the order of time.

    `total_pnl` is net of fees, `net_pnl` with funding. `roi` is all profit over all that was entered, `avg_roi` the
    mean of the single trades'. What is open shows in equity alone. Fractions are rounded to ten digits, money is not.
    """
    entered = [one for one in trades if one.is_entered]
    pnl = total(one.pnl for one in trades)
    fees = total(one.fees for one in trades)
    paid = total(funding)
    notional = total(one.notional for one in entered)
    rois = [one.roi for one in entered if one.roi is not None]
    wins = sum(one.pnl > 0 for one in entered)
    equity = [one.equity for one in marks]
    exposures = [abs(one.exposure) / one.equity for one in standings if one.equity > 0]
    return {
        "date": day,
        "trades_count": len(entered),
        "not_entered": len(trades) - len(entered),
        "wins": wins,
        "losses": sum(one.pnl < 0 for one in entered),
        "win_rate": _ratio(Decimal(wins), Decimal(len(entered))),
        "gross_pnl": total([pnl, fees]),
        "fees": fees,
        "total_pnl": pnl,
        "funding": paid,
        "net_pnl": total([pnl, paid]),
        "entry_notional": notional,
        "roi": _ratio(pnl, notional),
        "avg_roi": _ratio(total(rois), Decimal(len(rois))),
        "equity_first": equity[0] if equity else None,
        "equity_last": equity[-1] if equity else None,
        "equity_low": min(equity, default=None),
        "equity_high": max(equity, default=None),
        "max_drawdown": _rounded(max((one.drawdown for one in marks), default=None)),
        "max_exposure": _rounded(max(exposures, default=None)),
        "mean_exposure": _ratio(total(exposures), Decimal(len(exposures))),
        "candles_decided": len(standings),
        "approved": sum(one.approved for one in standings),
        "denied": sum(one.denied for one in standings),
    }


def _ratio(part: Decimal, whole: Decimal) -> Decimal | None:
    return None if whole == 0 else _rounded(part / whole)


def _rounded(fraction: Decimal | None) -> Decimal | None:
    return None if fraction is None else fraction.quantize(_DIGITS)
