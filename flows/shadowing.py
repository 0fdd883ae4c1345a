"""What the shadow journals tell of challengers: the days read back, their outcomes, and a page for people."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

from flows.replay.live_figures import LiveReport
from flows.replay.maturing import LiveRows, Seen, matured
from flows.training.live_evidence import Market
from flows.training.plots import calibration_curve, cumulative_net_return, information_coefficients
from flows.wording import figure, markdown_table, moment
from inference.domain.errors import JournalError
from inference.domain.shadow import Role, ShadowOpinion, ShadowScored
from inference.journal.codec import event_of
from inference.journal.head import read_head
from inference.journal.reader import day_files, whole_lines
from inference.journal.verify import verified

_WHO = ("ensemble", "champion")
_ENDS = ("", "_low", "_high")
_PREDICTED = ("predictions", "rmse_skill", "ic", "ic_low", "ic_high", "hit_rate", "brier", "calibration_error")
_TRADED = (
    "trades", "net_per_trade_bps", "net_per_trade_bps_low", "net_per_trade_bps_high", "trade_hit_rate", "net_return",
    "max_drawdown",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ShadowRecord:
    """What is known of the challengers that were scored lately, and in words which days could not be used."""

    challengers: tuple[LiveRows, ...]
    unusable: tuple[str, ...]


# Who was scored on one of so many newest days is looked at again with each run.
RECENT_DAYS = 7


def read_shadow(
    folder: Path, market: Market, *, recent_days: int = RECENT_DAYS, version: str | None = None
) -> ShadowRecord:
    """
    Return the outcomes of every challenger that was scored on one of the newest days, each since its first candle.

    Only what was scored in that market counts, and only its days: a sandbox's clock may be far ahead of the world's.
    With a version, those of that one, however long ago it was scored.

    Every day's chain is verified; a day that is damaged is left out and named. A last line that is being written, or
    that a crash cut short, does not count.
    """
    seen: list[Seen] = []
    unusable: list[str] = []
    wanted: set[str] = set()
    age = 0
    for path in reversed(day_files(folder)):
        try:
            day = [one for one in _read(path) if Market(venue=one.event.venue, mode=one.event.mode) == market]
        except (JournalError, OSError) as error:
            unusable.append(f"{path.name} is left out: {error}")
            continue
        if not day:
            continue
        said = [one for each in day for one in challengers_of(each.event)]
        found = {one.digest for one in said}
        if version is not None:
            wanted |= {one.digest for one in said if one.version == version}
        elif age < recent_days:
            wanted |= found
        elif not found & wanted:
            break
        seen += day
        age += 1
    rows = matured(seen)
    return ShadowRecord(tuple(one for one in rows if one.ours.digest in wanted), tuple(unusable))


def challengers_of(event: ShadowScored) -> list[ShadowOpinion]:
    """Return what challengers said of a candle."""
    return [one for one in event.opinions if one.role is Role.CHALLENGER]


@dataclass(frozen=True, slots=True)
class OldDays:
    """Journals that are past their time: which may go, and in words why others stay."""

    over: tuple[Path, ...]
    kept: tuple[str, ...]


def old_days(
    folder: Path, *, keep_days: int, recent: Collection[str], logged_until: Callable[[str, str], int]
) -> OldDays:
    """
    Return the days that nobody needs any more, oldest first.

    They lie more than `keep_days` before the newest one: the journal's own time counts, whatever a clock says. What has
    not matured, or is in no run of MLflow, stays; so does a day that is damaged, and each from the first on that tells
    of a challenger in `recent`, whose figures begin there. Reading what is left gives the same outcomes.

    Args:
        folder: Where the days are.
        keep_days: For how many days all is kept; 0 is for ever.
        recent: Digests of the challengers that are scored still, or were lately.
        logged_until: Which newest candle was known when outcomes of a version and digest last went to MLflow; 0 where
            none did.
    """
    days = [path for path in day_files(folder) if _date_of(path) is not None]
    over: list[Path] = []
    kept: list[str] = []
    if keep_days == 0 or not days:
        return OldDays((), ())
    first = (datetime.fromisoformat(days[-1].stem) - timedelta(days=keep_days)).strftime("%Y-%m-%d")
    for place, path in enumerate(days[:-RECENT_DAYS]):
        if path.stem >= first:
            break
        try:
            seen = _read(path)
            if any(one.digest in recent for each in seen for one in challengers_of(each.event)):
                break
            why = _still_needed(seen, days[place + 1 :], logged_until)
        except (JournalError, OSError) as error:
            why = str(error)
        if why is None:
            over.append(path)
        else:
            kept.append(f"{path.name} is kept beyond its time: {why}")
    return OldDays(tuple(over), tuple(kept))


def _date_of(path: Path) -> date | None:
    try:
        return date.fromisoformat(path.stem)
    except ValueError:
        return None


def _still_needed(seen: list[Seen], later: list[Path], logged_until: Callable[[str, str], int]) -> str | None:
    """Return why a day must stay, or None: each outcome is in MLflow, or will never be known."""
    due: dict[tuple[str, str], int] = {}
    for event in (one.event for one in seen):
        # The champion's horizon may be the longer one, and a row is paired once both have ended.
        longest = max((one.horizon for one in event.opinions), default=0) * event.timeframe_ms
        for one in challengers_of(event):
            key = one.version, one.digest
            due[key] = max(due.get(key, 0), event.candle_close_ms + longest)
    missing = {key: ms for key, ms in due.items() if logged_until(*key) < ms}
    if not missing:
        return None
    closes = {one.event.candle_close_ms for one in seen}
    known, newest_ms = list(seen), max(closes)
    for path in later:
        if newest_ms >= max(missing.values()):
            break
        known += _read(path)
        newest_ms = max(one.event.candle_close_ms for one in known)
    rows_of = {rows.ours.digest: rows for rows in matured(known)}
    for (version, digest), due_ms in missing.items():
        if newest_ms < due_ms:
            return f"predictions of version {version} have not matured"
        if closes & set(rows_of[digest].close_ms.tolist()):
            return (
                f"outcomes of version {version} are not in MLflow; log them with 'qtctl shadow {version} --live', "
                "or move the file away"
            )
    return None


def _read(path: Path) -> list[Seen]:
    # The anchor first: what is appended meanwhile it does not vouch for yet.
    head = read_head(path.with_suffix(".head"))
    entries = [one for one in verified(whole_lines(path), head) if one.type == ShadowScored.event_type]
    events = [(event_of(one), one.timestamp_ms) for one in entries]
    return [Seen(event, written_ms) for event, written_ms in events if isinstance(event, ShadowScored)]


def live_plots(report: LiveReport) -> dict[str, bytes]:
    """Return every picture of a challenger on live candles by file name."""
    return {
        "live_cumulative_net_return.png": cumulative_net_return(report.curves, start_ms=report.start_ms),
        "live_calibration_curve.png": calibration_curve(
            report.stated, report.observed, report.count, title="Calibration on live candles"
        ),
        "live_information_coefficient.png": information_coefficients(report.metrics, "live_shadow"),
    }


def live_markdown(report: LiveReport, run_page: str, notes: Iterable[str] = ()) -> str:
    """Say how a challenger does on live candles beside the champion, and by which prices that was found."""
    figures = report.metrics

    def of(who: str, names: Iterable[str]) -> list[str]:
        return [figure(figures.get(f"live_shadow/{who}/{name}")) for name in names]

    whom = [name for name in ("flat", "champion") if f"live_shadow/ensemble_minus_{name}/net_per_slot_bps" in figures]
    differences = [
        (name, *(figure(figures.get(f"live_shadow/ensemble_minus_{name}/net_per_slot_bps{end}")) for end in _ENDS))
        for name in whom
    ]
    champion = f"version {report.champion_version}" if report.champion_version else "none"
    return "\n\n".join(
        [
            f"## Version {report.version} on live candles of {Market(venue=report.venue, mode=report.mode)}",
            (
                f"{figure(figures.get('live_shadow/days'))} days of candles between {moment(report.start_ms)} and "
                f"{moment(report.end_ms)} UTC, {figure(figures.get('live_shadow/independent_outcomes'))} independent "
                f"outcomes. Champion beside it: {champion}.\n\n[Run in MLflow]({run_page})"
            ),
            *notes,
            "### Earned more than",
            markdown_table(("compared with", "bps per slot", "95 % from", "to"), differences),
            "### Trades",
            markdown_table(
                ("rule", "trades", "net bps per trade", "95 % from", "to", "winners", "net return", "max drawdown"),
                [(who, *of(who, _TRADED)) for who in _WHO],
            ),
            (
                "Bought at the ask and sold at the bid that the venue showed when the candle had closed, left at the "
                "prices shown a horizon later, the policy's taker fee paid twice; no slippage, no funding."
            ),
            "### Predictions",
            markdown_table(
                ("who", "skill against zero", "correlation", "95 % from", "to", "directional accuracy", "Brier",
                 "calibration error"),
                [(who, *of(who, _PREDICTED[1:])) for who in _WHO],
            ),
        ]
    )  # fmt: skip


def told(done: dict[str, dict[str, float]]) -> str:
    """Say what became of the challengers, a sentence for each."""
    if not done:
        return (
            "No prediction on live candles has matured here yet: the worker scores the alias challenger, see QT_SHADOW."
        )
    lines = []
    for version, figures in done.items():
        low, high = (figures.get(f"live_shadow/ensemble_minus_champion/net_per_slot_bps{end}") for end in _ENDS[1:])
        against = "without a champion beside it"
        if "live_shadow/paired_days" in figures:
            against = "too few to compare with the champion's"
        if low is not None and high is not None:
            against = f"{figure(low)} to {figure(high)} bps a slot more than the champion (95 %)"
        lines.append(
            f"Version {version}: {figure(figures.get('live_shadow/days'))} days, "
            f"{figure(figures.get('live_shadow/independent_outcomes'))} independent outcomes, {against}; see MLflow."
        )
    return "\n".join(lines)
