"""Going back to the version that traded before: what is decided, checked and moved, with or without servers."""

from __future__ import annotations

import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from feature_store.clock import utc_now
from feature_store.extensions.settings import ViewSettings
from flows.outcome import Rollback
from flows.registered import RegisteredVersion, RegistryError, RollbackPlan
from flows.registry import CHALLENGER, CHAMPION, MODEL_NAME, PREVIOUS, Registry
from flows.settings import FlowSettings
from inference.domain.errors import BundleError, JournalError, NothingPromotedError, RegistryUnavailableError
from inference.domain.events import Noted
from inference.journal.codec import entry_of, event_of
from inference.journal.reader import whole_lines
from inference.models.bundle import Bundle, load_bundle
from inference.models.notices import Notice, leave_notice
from inference.models.registry import BundleCache, LastGood, ModelVersion
from inference.models.set_aside import REJECTED, SetAside, found_aside, is_set_aside, set_aside
from inference.supervision.approval import APPROVED, VERDICT, journaled_approvals, require_approved

_BACK_TO_TAG, _ENDED_TAG = "rolled_back_to", "rollback_ended_at"
_SECONDS_TO_ANSWER = 5


def roll_back(settings: FlowSettings) -> Rollback:
    """
    Set the champion aside for the version before it: in MLflow, else in this home; no Prefect is needed.

    Raises:
        NothingPromotedError: There is nothing to go back to.
        RegistryError: MLflow refused to record it.
    """
    try:
        registry = reached(settings)
        plan = plan_rollback(registry)
        return carry_out(registry, settings, plan, why_not(registry, settings, plan))
    except RegistryUnavailableError as error:
        return go_back_here(settings, str(error))


def reached(settings: FlowSettings) -> Registry:
    """
    Return the registry, once it is sure that anybody answers: the library would ask a silent one for minutes.

    Raises:
        RegistryUnavailableError: No address is known, or nobody answers within seconds.
    """
    registry = Registry(settings.registry_address)
    try:
        with urllib.request.urlopen(f"{registry.url}/health", timeout=_SECONDS_TO_ANSWER):  # noqa: S310 - the operator's
            return registry
    except urllib.error.HTTPError:
        return registry  # Somebody answers, if not to this.
    except (OSError, ValueError) as error:
        raise RegistryUnavailableError(f"MLflow at {registry.url} does not answer ({error})") from error


def plan_rollback(registry: Registry) -> RollbackPlan:
    """
    Decide, once and by number, which version is set aside for which; nothing is changed.

    Where a rollback was carried out, or cut off after it had begun, the same two are found again.

    Raises:
        NothingPromotedError: No other version traded before.
        RegistryUnavailableError: MLflow does not answer.
    """
    champion, previous = registry.champion(), registry.by_alias(PREVIOUS)
    if champion is not None and not champion.is_rejected and previous is not None:
        if previous.version != champion.version:
            if previous.is_rejected:
                # One that was cut off has not been told of yet.
                was_done = not _is_unfinished(previous, champion)
                return RollbackPlan(aside=previous, target=champion, was_done=was_done)
            return RollbackPlan(aside=champion, target=previous)
        # Both aliases on one version: a rollback was cut off between them, if a version says that it was the other.
        for one in registry.versions():
            if _is_unfinished(one, champion):
                return RollbackPlan(aside=one, target=champion)
    elif champion is not None and previous is not None and not previous.is_rejected:
        return RollbackPlan(aside=champion, target=previous)
    raise NothingPromotedError(
        f"Nothing to roll back to: {MODEL_NAME} has no alias '{PREVIOUS}' on a version that may trade instead of "
        f"'{CHAMPION}'. Promote a second version first, or move the alias '{CHAMPION}' by hand at {registry.url}"
    )


def why_not(registry: Registry, settings: FlowSettings, plan: RollbackPlan) -> str | None:
    """
    Return why a worker would refuse the version that is to trade again, None where it passes a worker's own checks.

    What is asked of a version that trades real money is asked where QT_MODE says so, or where the version that is set
    aside was judged for it.

    Raises:
        RegistryUnavailableError: MLflow does not answer.
    """
    target = plan.target
    order = found_aside(settings.bundles, target.version, target.bundle_digest)
    if is_set_aside(order, target.tags):
        return f"Version {target.version} was itself set aside by a rollback"
    try:
        with tempfile.TemporaryDirectory() as temporary:
            folder = registry.download_bundle(target.version, Path(temporary))
            bundle = _verified(settings, folder, target.bundle_digest or None)
        if settings.mode == "live" or plan.aside.tags.get("gate_mode") == "live":
            venue = settings.venue if settings.mode == "live" else plan.aside.tags.get("venue", settings.venue)
            require_approved(ModelVersion(version=target.version, tags=target.tags), bundle.digest, venue=venue)
            _check_pin(bundle.digest)
    except (BundleError, RegistryError) as error:
        return str(error)
    return None


def carry_out(registry: Registry, settings: FlowSettings, plan: RollbackPlan, refusal: str | None) -> Rollback:
    """
    Move the aliases to where the plan says, or only set the champion aside where the other cannot take its place.

    Everything is done by number, so doing it again, whole or in part, ends in the same. The worker of this home is told
    first: it needs no registry.

    Raises:
        RegistryError: MLflow refused, or another version became champion meanwhile.
        RegistryUnavailableError: MLflow does not answer any more.
    """
    aside, target = plan.aside, plan.target
    _check_champion(registry, plan)
    told = _tell_home(settings, aside, back_to="" if refusal else target.bundle_digest)
    try:
        _write(registry, plan, refusal)
    except RegistryError as error:
        raise RegistryError(f"{error}. In this home version {aside.version} {told}") from error
    done = Rollback(
        version=target.version,
        replaced=aside.version,
        run_id=target.run_id,
        restored=refusal is None,
        repeated=plan.was_done,
        reasons=() if refusal is None else (refusal,),
    )
    if done.restored and not done.repeated:
        _announce(settings, done, target.bundle_digest, target.tags.get("gate_verdict", "not judged"))
    return done


def heed_home(registry: Registry, settings: FlowSettings) -> Rollback | None:
    """
    Do in the registry what was done in this home: a worker that fell back, or a rollback while nobody answered.

    What was cut off between two steps is brought to its end.

    Returns:
        The rollback; None where the champion is not set aside here, or where there is nothing to go back to: then the
        champion is rejected all the same, so that no other worker trades it.

    Raises:
        RegistryError: MLflow refused.
        RegistryUnavailableError: MLflow does not answer.
    """
    champion, previous = registry.champion(), registry.by_alias(PREVIOUS)
    if champion is None:
        return None
    cut_off = _was_cut_off(registry, champion, previous)
    order = found_aside(settings.bundles, champion.version, champion.bundle_digest)
    if not cut_off and (champion.is_rejected or not is_set_aside(order, champion.tags)):
        return None
    try:
        plan = plan_rollback(registry)
    except NothingPromotedError:
        plan = None
    if plan is None or not (cut_off or plan.aside.version == champion.version):
        if not cut_off:
            # What traded before was itself set aside.
            registry.tag(champion.version, {"status": REJECTED})
        return None
    refusal = why_not(registry, settings, plan)
    return None if champion.is_rejected and refusal is not None else carry_out(registry, settings, plan, refusal)


def _was_cut_off(registry: Registry, champion: RegisteredVersion, previous: RegisteredVersion | None) -> bool:
    """Whether a rollback ended between two of its steps: after its tags, between aliases, or before the last tags."""
    if champion.is_rejected:
        return _BACK_TO_TAG in champion.tags
    if previous is None:
        return False
    # Both aliases are on one version also where a promotion was cut off, or a hand moved one: then no rollback is open.
    others = registry.versions() if previous.version == champion.version else [previous]
    return any(_is_unfinished(one, champion) for one in others)


def _is_unfinished(aside: RegisteredVersion, target: RegisteredVersion) -> bool:
    """Whether a version was set aside for another, and not all that belongs to it was done."""
    if not aside.is_rejected or aside.tags.get(_BACK_TO_TAG) != target.version:
        return False
    ended = aside.tags.get(_ENDED_TAG)
    # Rollbacks of before have no such tag: there the last thing was that the other became active.
    return target.tags.get("status") != "active" if ended is None else not ended


def go_back_here(settings: FlowSettings, reason: str) -> Rollback:
    """
    Let the worker of this home go back to the cached bundle that traded before, while no registry can be asked.

    Raises:
        NothingPromotedError: No bundle of this home traded before the one that trades now.
        RegistryError: The home cannot be written.
    """
    cache = BundleCache(settings.bundles)
    now = cache.last_good()
    aside, target, was_done = (None, None, False) if now is None else _pair(settings, cache, now)
    if aside is None or target is None:
        raise NothingPromotedError(
            f"{reason}. And this home ({settings.home}) holds no bundle that traded before the one that trades now, "
            "so there is nothing to go back to without it"
        )
    refusal = _why_not_cached(settings, cache, target)
    try:
        set_aside(
            settings.bundles,
            SetAside(
                version=aside.version,
                digest=aside.digest,
                decided_at=utc_now().isoformat(timespec="milliseconds"),
                back_to="" if refusal else target.digest,
            ),
        )
    except (OSError, ValueError) as error:
        raise RegistryError(f"{reason}. And the order cannot be left in {settings.bundles} ({error})") from error
    done = Rollback(
        version=target.version,
        replaced=aside.version,
        restored=refusal is None,
        repeated=was_done,
        only_here=True,
        reasons=(reason,) if refusal is None else (refusal, reason),
    )
    if done.restored and not done.repeated:
        _announce(settings, done, target.digest, "passed" if target.gated else "not judged")
    return done


def _pair(settings: FlowSettings, cache: BundleCache, now: LastGood) -> tuple[LastGood | None, LastGood | None, bool]:
    """Return which cached bundle is set aside for which, and whether it was before."""
    order = found_aside(settings.bundles, now.version, now.digest)
    if order is not None:
        return now, cache.traded(order.back_to) or now.before, True
    before = now.before
    if before is None:
        return None, None, False
    earlier = found_aside(settings.bundles, before.version, before.digest)
    if earlier is not None and earlier.back_to == now.digest:
        return before, now, True
    return now, before, False


def _write(registry: Registry, plan: RollbackPlan, refusal: str | None) -> None:
    aside, target = plan.aside.version, plan.target.version
    # First, for a worker that reads nothing else leaves it by this, and whoever is cut off finds its way back by it.
    registry.tag(aside, {_BACK_TO_TAG: target, _ENDED_TAG: "", "status": REJECTED})
    challenger = registry.by_alias(CHALLENGER)
    if challenger is not None and challenger.version == aside:
        registry.drop_alias(CHALLENGER)
    if refusal is None:
        registry.set_alias(CHAMPION, target)
        registry.set_alias(PREVIOUS, aside)
        registry.tag(target, {"status": "active"})
    registry.tag(aside, {_ENDED_TAG: utc_now().isoformat(timespec="seconds")})


def _check_champion(registry: Registry, plan: RollbackPlan) -> None:
    champion = registry.champion()
    if champion is not None and champion.version not in (plan.aside.version, plan.target.version):
        raise RegistryError(
            f"Version {champion.version} became champion while version {plan.aside.version} was to be set aside; "
            "nothing was changed: look at what trades, then run 'qtctl rollback' again"
        )


def _tell_home(settings: FlowSettings, aside: RegisteredVersion, back_to: str) -> str:
    order = SetAside(
        version=aside.version,
        digest=aside.bundle_digest,
        decided_at=utc_now().isoformat(timespec="milliseconds"),
        back_to=back_to,
    )
    try:
        set_aside(settings.bundles, order)
    except (OSError, ValueError) as error:
        return f"was not set aside either ({error})"
    return "is set aside all the same"


def _announce(settings: FlowSettings, done: Rollback, digest: str, verdict: str) -> None:
    notice = Notice(
        event="model.rolled_back",
        version=done.version,
        digest=digest,
        verdict=verdict,
        mode=settings.mode,
        decided_at=utc_now().isoformat(timespec="milliseconds"),
        replaced=done.replaced,
    )
    try:
        leave_notice(settings.verdicts, notice)
    except OSError:
        return  # The worker journals what it loads and leaves all the same; the registry holds the decision.


def _verified(settings: FlowSettings, folder: Path, digest: str | None) -> Bundle:
    bundle = load_bundle(folder, expected_fingerprint=ViewSettings.of().view().fingerprint(), expected_digest=digest)
    if bundle.manifest.timeframe != settings.timeframe:
        raise BundleError(
            f"It learned candles of {bundle.manifest.timeframe}, QT_TIMEFRAME says {settings.timeframe} here"
        )
    return bundle


def _check_pin(digest: str) -> None:
    """Refuse what QT_APPROVAL_FILE does not let a worker with this environment trade."""
    file = os.environ.get("QT_APPROVAL_FILE")
    try:
        pinned = digest if not file else Path(file).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"QT_APPROVAL_FILE={file!r} cannot be read ({error})") from error
    if pinned != digest:
        raise BundleError(f"QT_APPROVAL_FILE lets only bundle {pinned[:64]} trade, this one has {digest}")


def _why_not_cached(settings: FlowSettings, cache: BundleCache, target: LastGood) -> str | None:
    if found_aside(settings.bundles, target.version, target.digest) is not None:
        return f"Version {target.version} was itself set aside by a rollback"
    try:
        _verified(settings, cache.folder(target.digest), target.digest)
        if settings.mode == "live":
            _check_journaled(settings.journal, target.digest, venue=settings.venue)
            _check_pin(target.digest)
    except (BundleError, JournalError, OSError) as error:
        return str(error)
    return None


def _check_journaled(journal: Path, digest: str, *, venue: str) -> None:
    if digest not in journaled_approvals(_decided(journal), venue=venue):
        raise BundleError(f"The journal of this home does not say that bundle {digest} was approved")


def _decided(journal: Path) -> Iterator[tuple[str, dict[str, str]]]:
    for line in whole_lines(journal):
        if b'"model.' not in line:
            continue  # Candles are the bulk of a journal.
        event = event_of(entry_of(line))
        if isinstance(event, Noted) and event.event_type in (VERDICT, APPROVED):
            yield event.event_type, dict(event.detail)
