"""The flow that follows challengers on live candles: what they predicted, matured, beside the champion, into MLflow."""

from __future__ import annotations

from functools import cache

import msgspec
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.orchestration import ASKING_REGISTRY, ProgressBar, markdown, say
from flows.outcome import LIVE_SHADOW_REPORT
from flows.registry import RegisteredVersion, Registry, RegistryError, RunLog
from flows.replay.live_figures import LAST_DAY, SEEN_TAG, LiveReport, live_report
from flows.replay.maturing import LiveRows
from flows.settings import FlowSettings
from flows.shadowing import ShadowRecord, live_markdown, live_plots, old_days, read_shadow
from flows.training.live_evidence import Market
from inference.journal.keeping import remove_day


@task(task_run_name="read-shadow-journal", cache_policy=NO_CACHE, timeout_seconds=1800)
def read_journal(settings: FlowSettings, version: str | None = None) -> ShadowRecord:
    """Return what has matured of every challenger that was scored lately, or of one version."""
    market = Market(venue=settings.venue, mode=settings.mode)
    return read_shadow(settings.shadow_journal, market, version=version)


@task(task_run_name="find-version-{number}", **ASKING_REGISTRY)
def find_version(settings: FlowSettings, number: str, digest: str) -> tuple[RegisteredVersion, int] | None:
    """
    Return a version with the last day that was logged to its run; None where the registry knows another, or none.

    One that was trained for another venue is left out: its run would hold figures of two markets under one name.
    """
    registry = Registry(settings.registry_address)
    try:
        version = registry.version(number)
        logged = registry.metrics(version.run_id).get(LAST_DAY, 0.0) if version.run_id else 0.0
    except RegistryError as error:
        say("Version %s is left out: %s", number, error)
        return None
    if not version.run_id or version.bundle_digest not in ("", digest):
        # A registry that was begun afresh counts its versions from 1 again.
        say("Version %s is left out: the journal tells of bundle %s, the registry holds another", number, digest[:12])
        return None
    if (trained_on := version.tags.get("venue") or settings.venue) != settings.venue:
        say("Version %s is left out: it was trained on %s, and scored on %s", number, trained_on, settings.venue)
        return None
    return version, int(logged)


@task(task_run_name="measure-version-{rows.ours.version}", cache_policy=NO_CACHE, timeout_seconds=1800)
def measure(rows: LiveRows, since_day: int) -> LiveReport:
    """Return all figures, and again day by day from the last day on that was logged."""
    return live_report(rows, since_day=since_day)


@task(task_run_name="log-version-{report.version}", **ASKING_REGISTRY)
def log_live(settings: FlowSettings, run_id: str, report: LiveReport, notes: tuple[str, ...]) -> str:
    """Log figures by day, plots and the report to the run of the challenger's training; return its page."""
    registry = Registry(settings.registry_address)
    page = registry.run_page(run_id, settings.registry_page)
    registry.log(
        run_id,
        RunLog(
            points=report.points,
            tags={
                "live_shadow_venue": report.venue,
                "live_shadow_mode": report.mode,
                "live_shadow_bundle_digest": report.bundle_digest,
                "live_shadow_champion_digest": report.champion_digest or "",
                SEEN_TAG: str(report.seen_ms),
            },
            texts={
                LIVE_SHADOW_REPORT: msgspec.json.encode(msgspec.structs.replace(report, points=())).decode(),
                "reports/live_shadow.md": live_markdown(report, page, notes),
            },
            images={f"plots/{name}": image for name, image in live_plots(report).items()},
        ),
    )
    return page


@task(task_run_name="forget-old-days", **ASKING_REGISTRY)
def forget_old_days(settings: FlowSettings, record: ShadowRecord) -> tuple[str, ...]:
    """Take journals away that are past their time and all of whose outcomes are in MLflow; say what stays, and why."""

    @cache
    def logged_until(number: str, digest: str) -> int:
        registry = Registry(settings.registry_address)
        try:
            version = registry.version(number)
            tags = registry.run_tags(version.run_id) if version.run_id else {}
        except RegistryError:
            return 0
        known = tags.get(SEEN_TAG, "0")
        same = tags.get("live_shadow_bundle_digest") == digest
        return int(known) if same and known.isdecimal() else 0

    found = old_days(
        settings.shadow_journal,
        keep_days=settings.shadow_keep_days,
        recent={rows.ours.digest for rows in record.challengers},
        logged_until=logged_until,
    )
    gone = [path for path in found.over if remove_day(path)]
    if gone:
        say("Took away %d days of challengers up to %s: all is in MLflow", len(gone), gone[-1].stem)
    return found.kept


@flow(name="live-shadow", flow_run_name="challengers on live candles", timeout_seconds=3600)
def live_shadow(version: str | None = None) -> dict[str, dict[str, float]]:
    """
    Mature what challengers predicted on live candles, and log it beside the champion to their MLflow runs.

    The worker, or `qtctl worker --shadow`, journals what challenger and champion say of each closed candle, and the
    prices that the venue shows. A prediction matures once its horizon has ended: entered at the ask or bid of its
    candle, left at the bid or ask a horizon later, fees paid. Metrics `live_shadow/*` get one step for each day of UTC,
    and running this again changes nothing that is logged. Challengers are told apart by the digest of their bundle, and
    only what was scored on QT_VENUE in QT_MODE is read: candles of the sandbox say nothing of a real venue. Days of the
    journal that are older than QT_SHADOW_KEEP_DAYS (90; 0 keeps all) are taken away once all of their outcomes are
    logged and no challenger of the last days is told of there.

    Args:
        version: Number of a version of `quantum-ensemble`, however long ago it was scored. Left empty: every one that
            was scored in the last days.
    """
    settings = FlowSettings.of()
    record = read_journal(settings, version)
    chosen = [rows for rows in record.challengers if version is None or rows.ours.version == version]
    bar = ProgressBar("live-shadow", f"{len(chosen)} challengers")
    done: dict[str, dict[str, float]] = {}
    pages = []
    for number, rows in enumerate(chosen, start=1):
        found = find_version(settings, rows.ours.version, rows.ours.digest) if len(rows) else None
        if found is not None:
            report = measure(rows, found[1])
            page = log_live(settings, found[0].run_id, report, record.unusable)
            done[report.version] = report.metrics
            pages.append(live_markdown(report, page))
        bar.show(number / len(chosen), f"version {rows.ours.version}")
    kept = forget_old_days(settings, record) if version is None and settings.shadow_keep_days else ()
    told = [*record.unusable, *kept]
    for sentence in told:
        say("%s", sentence)
    # The newest first: it is what the alias points at.
    text = "\n\n".join([*told, *reversed(pages)]) or "No prediction on live candles has matured here yet."
    markdown("live-shadow", text, "Challengers on live candles, beside the champion")
    say("%d of %d challengers have matured predictions", len(done), len(chosen))
    return done
