"""What the journal says that decisions read, held against the lake: the audit of skew, without a flow run."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import UnsetType

from feature_store.candle import Series, Timeframe
from feature_store.errors import BadInputError, QuantumError
from feature_store.extensions.settings import ViewSettings
from feature_store.features.definition import fingerprint
from feature_store.features.digests import DIGESTS, FACTS, unpack_digests, unpack_facts, unpack_inputs
from feature_store.skew import AddedRow, Cause, Difference, SkewReport, Used, audit
from feature_store.skew_added import audit_added
from feature_store.store import FeatureStore
from flows.settings import FlowSettings
from flows.wording import moment
from inference.domain.errors import JournalError
from inference.domain.events import FeaturesUsed
from inference.journal.codec import Entry, entry_of, event_of
from inference.journal.reader import whole_lines

_HOUR_MS = 3_600_000
_MARK = f'"type":"{FeaturesUsed.event_type}"'.encode()
_SHOWN = 500
NOT_IN_THE_LAKE = (
    "With QT_MODE=testnet the worker reads candles of a test network, which no lake holds: there is nothing to audit"
)


class SkewError(QuantumError):
    """Decisions read features that the lake's candles do not explain."""


def audit_skew(settings: FlowSettings, hours: int) -> SkewReport:
    """
    Recompute what was read in the journal's last hours, and return what differs.

    Raises:
        BadInputError: There is no journal, it holds no record of features, or the lake holds no candle of that market.
        JournalError: An entry cannot be read.
        CorruptFileError: A partition of the lake is damaged.
    """
    if settings.trades_other_candles:
        raise BadInputError(NOT_IN_THE_LAKE)
    used = used_rows(settings.journal, hours)
    return report_of(used, [one for series in sorted(used) for one in audit_series(settings, series, used[series])])


def audit_series(settings: FlowSettings, series: Series, used: Used) -> tuple[Difference, ...]:
    """
    Recompute what was read of one series, and return what differs.

    Inputs that QT_EXTENSIONS and QT_INCLUDE_* add are recomputed by what these settings say here.

    Raises:
        BadInputError: Those settings cannot be used.
        CorruptFileError: A partition of the lake, or a file of features, is damaged.
    """
    lake = settings.candle_lake()
    found = audit(lake, series, used, FeatureStore(settings.features))
    if not any(used.added):
        return found
    return (*found, *audit_added(lake, ViewSettings.of().view(), series, used))


def report_of(used: Mapping[Series, Used], differences: Iterable[Difference]) -> SkewReport:
    """Return what was found with how much was looked at."""
    return SkewReport(sum(len(one) for one in used.values()), len(used), tuple(differences))


def used_rows(journal: Path, hours: int) -> dict[Series, Used]:
    """
    Return the rows that decisions read in the last hours of a journal, by series.

    Raises:
        BadInputError: There is no journal, or it holds no record of features.
        JournalError: An entry cannot be read.
    """
    if hours < 1:
        raise BadInputError(f"Skew is looked for in one hour at least, was {hours}")
    if not journal.exists():
        raise BadInputError(f"There is no journal at {journal}; start a worker first, or set QUANTUM_HOME")
    kept: deque[tuple[Entry, FeaturesUsed]] = deque()
    earlier: dict[Series, list[np.void]] = {}
    for entry, event in _records(journal):
        kept.append((entry, event))
        while kept[0][0].timestamp_ms < entry.timestamp_ms - hours * _HOUR_MS:
            _remember(earlier, *kept.popleft())
    if not kept:
        raise BadInputError(
            f"The journal {journal} holds no record of features that a decision read; let a worker decide first"
        )
    return _by_series(kept, earlier)


def _records(journal: Path) -> Iterator[tuple[Entry, FeaturesUsed]]:
    for line in whole_lines(journal):
        # Most entries are of other kinds, and reading one is costly.
        if _MARK not in line:
            continue
        entry = entry_of(line)
        event = event_of(entry) if entry.type == FeaturesUsed.event_type else None
        if isinstance(event, FeaturesUsed):
            yield entry, event


def _remember(earlier: dict[Series, list[np.void]], entry: Entry, event: FeaturesUsed) -> None:
    """Keep the facts that tell of a gap or of another start: a state goes on from them for as long as it lives."""
    for symbol, facts in zip(event.symbols, _facts(entry, event), strict=True):
        known = earlier.setdefault(Series(event.venue, symbol, Timeframe.parse(event.timeframe)), [])
        if not known or any(known[-1][one] != facts[one] for one in ("first_open_time_ms", "missing")):
            known.append(facts)


def _facts(entry: Entry, event: FeaturesUsed) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    try:
        Timeframe.parse(event.timeframe)
        return unpack_facts(event.facts, len(event.symbols))
    except BadInputError as error:
        raise _unreadable(entry, error) from error


def _unreadable(entry: Entry, error: BadInputError) -> JournalError:
    return JournalError(f"Journal entry {entry.seq} ({entry.type}) cannot be read: {error}; run `qtctl audit verify`")


def _by_series(
    records: Iterable[tuple[Entry, FeaturesUsed]], earlier: Mapping[Series, list[np.void]]
) -> dict[Series, Used]:
    facts: dict[Series, list[np.void]] = {}
    digests: dict[Series, list[np.void]] = {}
    told: dict[Series, list[tuple[int, str, str]]] = {}
    added: dict[Series, list[AddedRow | None]] = {}
    for entry, event in records:
        try:
            unpacked = _facts(entry, event), _digests(event), _added(event)
        except BadInputError as error:
            raise _unreadable(entry, error) from error
        timeframe = Timeframe.parse(event.timeframe)
        for row, symbol in enumerate(event.symbols):
            series = Series(event.venue, symbol, timeframe)
            facts.setdefault(series, []).append(unpacked[0][row])
            digests.setdefault(series, []).append(unpacked[1][row])
            added.setdefault(series, []).append(unpacked[2][row])
            told.setdefault(series, []).append((entry.timestamp_ms, event.fingerprint, event.code))
    return {
        series: Used(
            decided_ms=np.array([one[0] for one in told[series]], np.int64),
            facts=np.array(facts[series], FACTS),
            digests=np.array(digests[series], DIGESTS),
            fingerprints=tuple(one[1] for one in told[series]),
            codes=tuple(one[2] for one in told[series]),
            added=tuple(added[series]),
            earlier=np.array(earlier.get(series, []), FACTS),
        )
        for series in facts
    }


def _digests(event: FeaturesUsed) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    # Of another feature set there may be more or fewer; they are told apart by their fingerprint, not by these.
    if event.fingerprint != fingerprint():
        return np.zeros(len(event.symbols), DIGESTS)
    return unpack_digests(event.digests, len(event.symbols))


def _added(event: FeaturesUsed) -> list[AddedRow | None]:
    """Return what each row held beside the inputs made of the 49; nothing where nothing was added."""
    count, more = len(event.symbols), event.added
    if isinstance(more, UnsetType):
        return [None] * count
    facts = unpack_facts(more.facts, count * len(more.peers)).reshape(count, len(more.peers))
    values = unpack_inputs(more.values, count, len(more.names))
    return [
        AddedRow(fingerprint=more.fingerprint, names=more.names, values=values[row], peers=more.peers, facts=facts[row])
        for row in range(count)
    ]


def rows(differences: Sequence[Difference]) -> list[dict[str, Any]]:
    """Return a row for each difference, what nothing excuses first, for a table; no more than people read."""
    first = sorted(differences, key=lambda one: (one.cause.explains, one.open_time_ms, one.series))
    return [
        {
            "symbol": one.series.symbol,
            "candle": moment(one.open_time_ms),
            "cause": one.cause.value,
            "features": _named(one.features),
            "detail": one.detail,
        }
        for one in first[:_SHOWN]
    ]


def by_cause(differences: Iterable[Difference]) -> list[dict[str, Any]]:
    """Return how many candles each cause touched, and which features most."""
    found: dict[Cause, list[Difference]] = {}
    for one in differences:
        found.setdefault(one.cause, []).append(one)
    return [
        {
            "cause": cause.value,
            "candles": len({(one.series, one.open_time_ms) for one in found[cause]}),
            "series": len({one.series for one in found[cause]}),
            "features": _named(_most_common(found[cause])),
        }
        for cause in Cause
        if cause in found
    ]


def _most_common(differences: Iterable[Difference]) -> list[str]:
    counts = Counter(name for one in differences for name in one.features)
    return [name for name, _ in counts.most_common()]


def told(report: SkewReport) -> str:
    """Say in words what an audit found."""
    head = f"{report.rows} rows of {report.series} series were recomputed"
    if not report.differences:
        return f"{head}: none differs."
    lines = [f"{head}:"]
    lines += [f"  {one['candles']} candles: {one['cause']} ({one['features']})" for one in by_cause(report.differences)]
    lines += [
        f"  {one.series.symbol} {moment(one.open_time_ms)}: {_named(one.features)}: {one.detail}"
        for one in report.unexplained[:10]
    ]
    return "\n".join(lines)


def document(report: SkewReport) -> dict[str, Any]:
    """Return an audit as plain values."""
    return {
        "rows": report.rows,
        "series": report.series,
        "unexplained": len(report.unexplained),
        "differences": [
            {
                "venue": one.series.venue,
                "symbol": one.series.symbol,
                "timeframe": one.series.timeframe.value,
                "open_time_ms": one.open_time_ms,
                "decided_ms": one.decided_ms,
                "cause": one.cause.value,
                "features": list(one.features),
                "detail": one.detail,
            }
            for one in report.differences
        ],
    }


def refuse_unexplained(report: SkewReport) -> None:
    """
    End in failure where something is unexplained, or put down to other code, which should give the same.

    Raises:
        SkewError: It is.
    """
    found = report.unexplained
    if found:
        worst = found[0]
        raise SkewError(
            f"{len({(one.series, one.open_time_ms, one.decided_ms) for one in found})} of {report.rows} rows that"
            " decisions read differ from the lake and nothing explains it, "
            f"first {worst.series.symbol} at {moment(worst.open_time_ms)} ({_named(worst.features)}): {worst.detail}"
        )


def _named(features: Sequence[str]) -> str:
    return ", ".join(features[:6]) + (f" and {len(features) - 6} more" if len(features) > 6 else "")
