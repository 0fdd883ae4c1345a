"""Which model trades: follows the registry's alias, verifies in the background, offers a swap between two candles."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from feature_store.clock import utc_now
from inference.domain.errors import BundleError, NothingPromotedError, RegistryUnavailableError
from inference.models.bundle import Bundle, load_bundle
from inference.models.notices import notices_in
from inference.models.registry import BundleCache, LastGood, MlflowRegistry, ModelVersion
from inference.models.set_aside import SetAside, found_aside, is_set_aside, let_again, set_aside
from inference.supervision.approval import evidence_of, require_approved
from inference.telemetry.logs import logger

_log = logger("models")
_RETRY_SECONDS = 60.0
_RETRY_LIMIT_SECONDS = 1800.0
LOCAL = "local"
"""The version of a bundle that was given as a folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveModel:
    """A verified bundle under the name it trades by."""

    bundle: Bundle
    version: str
    gated: bool
    source: str

    @property
    def label(self) -> str:
        """Whether gates let it pass, in a word."""
        return "gated" if self.gated else "ungated"


@dataclass(slots=True)
class _Refusal:
    reason: str
    retry_at: float
    pause: float


class ModelWatch:
    """
    Knows the model to trade and why there is none.

    `offered` is a verified model that waits for the worker to take it between two candles; `wanted` is False once the
    registry says that nothing is promoted, or `unwanted` gives a reason to pass a version over. A registry that is down
    or a bundle that fails changes nothing else. A version that a rollback set aside, by the registry's word or by that
    of this home, is left at once, whether or not another can take its place. `judged_for` is the only mode by whose
    verdict a version is called gated; None lets any count.
    """

    def __init__(
        self,
        *,
        cache: BundleCache,
        fingerprint: str,
        timeframe: str,
        on_event: Callable[[str, Mapping[str, str]], None],
        monotonic: Callable[[], float],
        approved_digest: str | None = None,
        only_approved: bool = False,
        judged_for: str | None = None,
        venue: str = "",
        unwanted: Callable[[ModelVersion], str | None] = lambda _: None,
        journaled_approvals: frozenset[str] = frozenset(),
        notices: Path | None = None,
    ) -> None:
        self._cache = cache
        self._fingerprint = fingerprint
        self._timeframe = timeframe
        self._on_event = on_event
        self._monotonic = monotonic
        self._approved_digest = approved_digest
        self._only_approved = only_approved
        self._judged_for = judged_for
        self._venue = venue
        self._unwanted = unwanted
        self._journaled_approvals = journaled_approvals
        self._notices = notices
        self._refusals: dict[str, _Refusal] = {}
        self._known: LastGood | None = None
        self._left: LastGood | None = None
        self._obeyed: SetAside | None = None
        self._passed_over: str | None = None
        self._registry_down = False
        self._not_left: str | None = None
        self.offered: ActiveModel | None = None
        self.wanted = True
        self.reason = "looking for a model"

    def take(self) -> ActiveModel | None:
        """Return the model that waits, once."""
        offered, self.offered = self.offered, None
        return offered

    async def load_folder(self, path: Path) -> None:
        """
        Offer the bundle in a local folder; there is no registry behind it.

        Raises:
            BundleError: It cannot be trusted.
        """
        if self._only_approved:
            raise BundleError("QT_MODE=live trades only what the gates passed and a person approved, never a folder")
        bundle = await self._load(path)
        self._offer(ActiveModel(bundle=bundle, version=LOCAL, gated=False, source=str(path)))

    async def load_last_good(self) -> None:
        """Offer what traded last, for a start while the registry is down or slow."""
        noted = self._cache.last_good()
        if noted is None:
            return
        order = found_aside(self._cache.root, noted.version, noted.digest)
        if order is not None:
            await self._go_back(order)
        elif (bundle := await self._load_cached(noted)) is not None:
            self._known = noted
            self._offer(ActiveModel(bundle=bundle, version=noted.version, gated=noted.gated, source="cache"))

    async def obey(self) -> None:
        """Leave the model that was set aside in this home, for the cached one that takes its place if there is one."""
        known = self._known or self._left
        order = None if known is None else found_aside(self._cache.root, known.version, known.digest)
        # Once: a bundle that cannot be trusted is not tried each second.
        if order is not None and order != self._obeyed:
            await self._go_back(order)

    async def look(self, registry: MlflowRegistry, alias: str) -> None:
        """Ask the registry once, and follow what it says."""
        try:
            version = await registry.version_of(alias)
            self._registry_is_up()
            await self._follow(registry, version)
        except NothingPromotedError as error:
            self._registry_is_up()
            self._withdraw(str(error))
        except RegistryUnavailableError as error:
            self._registry_is_down(str(error))

    async def run(self, url: str, *, model_name: str, alias: str, every: float) -> None:
        """Keep asking until cancelled."""
        async with aiohttp.ClientSession() as session:
            registry = MlflowRegistry(session, url=url, model_name=model_name)
            while True:
                await self.look(registry, alias)
                await asyncio.sleep(every)

    async def follow_home(self, *, every: float) -> None:
        """Keep obeying and journaling what was decided in this home until cancelled; a slow registry delays none."""
        while True:
            await self.obey()
            self.journal_notices()
            await asyncio.sleep(every)

    def is_left(self, model: ActiveModel) -> bool:
        """Whether a model is set aside in this home."""
        return found_aside(self._cache.root, model.version, model.bundle.digest) is not None

    def leave(self, model: ActiveModel) -> str | None:
        """
        Set a model aside in this home, as a rollback does; it is left within a second.

        Returns:
            The digest of the cached bundle that traded before and takes over, empty where there is none; None where
            the model could not be set aside.
        """
        noted = self._cache.last_good()
        before = noted.before if noted is not None and noted.digest == model.bundle.digest else None
        if before is not None and found_aside(self._cache.root, before.version, before.digest) is not None:
            before = None
        back_to = before.digest if before is not None and self._cache.holds(before.digest) else ""
        order = SetAside(
            version=model.version, digest=model.bundle.digest, decided_at=utc_now().isoformat(), back_to=back_to
        )
        try:
            set_aside(self._cache.root, order)
        except (OSError, ValueError) as error:
            if self._not_left != model.bundle.digest:
                self._not_left = model.bundle.digest
                self._on_event("model.not_set_aside", {"version": model.version, "reason": str(error)[:300]})
            return None
        self._not_left = None
        return back_to

    def journal_notices(self) -> None:
        """Journal what flows of this home decided of models, each once; a notice that cannot be read is named."""
        for path, notice in notices_in(self._notices) if self._notices is not None else ():
            if notice is None:
                self._on_event("model.notice_unreadable", {"file": path.name})
            else:
                self._on_event(notice.event, notice.detail())
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                # It would be journaled again each second.
                self._on_event("model.notice_not_removed", {"file": path.name, "reason": str(error)})
                self._notices = None
                return

    async def _follow(self, registry: MlflowRegistry, version: ModelVersion) -> None:
        if (reason := self._unwanted(version)) is not None:
            self._withdraw(reason)
            return
        if self._was_set_aside(version):
            return
        if self._is_known(version):
            self.wanted = True
            return
        refusal = self._refusals.get(version.version)
        if refusal is not None and self._monotonic() < refusal.retry_at:
            return
        folder = scratch = self._cache.scratch()
        try:
            folder, digest = await registry.download(version.version, scratch, cache=self._cache)
            # Before anything is loaded: a bundle that was forged whole fits its own digest, not the registry's.
            self._check_tags(version, digest)
            bundle = await self._load(folder, digest=digest)
            self._check_approval(version, bundle)
            # Its digest may be known only now, and a person may have decided meanwhile.
            self._check_not_set_aside(version, digest)
            self._cache.adopt(folder, digest)
        except BundleError as error:
            self._cache.discard(folder)
            self._refuse(version.version, str(error))
            return
        except OSError as error:
            # A full disk, mostly. What trades goes on; asked again at once, the disk would be full all the time.
            self._refuse(version.version, f"its bundle cannot be stored under {self._cache.root} ({error})")
            return
        finally:
            self._cache.discard(scratch)
        self._refusals.pop(version.version, None)
        self._known = LastGood(digest=digest, version=version.version, gated=self._is_gated(version))
        self._remember(self._known)
        self._offer(ActiveModel(bundle=bundle, version=version.version, gated=self._known.gated, source="registry"))

    def _remember(self, known: LastGood) -> None:
        """Note what trades for the next start; without the note it begins with what traded before."""
        try:
            self._cache.remember(known)
        except OSError as error:
            _log.warning("model_not_noted", version=known.version, reason=str(error))

    def _is_gated(self, version: ModelVersion) -> bool:
        judged_for = self._judged_for
        return version.is_gated and (judged_for is None or version.tags.get("gate_mode") == judged_for)

    def _is_known(self, version: ModelVersion) -> bool:
        # A registry that was begun afresh counts its versions from 1 again: the number alone names no model.
        known = self._known
        return (
            known is not None
            and known.version == version.version
            and version.tags.get("bundle_digest", known.digest) == known.digest
        )

    def _was_set_aside(self, version: ModelVersion) -> bool:
        """Pass a version over that a rollback set aside; what trades instead goes on."""
        known = self._known
        is_known = self._is_known(version)
        digest = version.tags.get("bundle_digest") or (known.digest if known is not None and is_known else "")
        order = found_aside(self._cache.root, version.version, digest)
        if not is_set_aside(order, version.tags):
            self._passed_over = None
            if order is not None:
                let_again(self._cache.root, version.version, digest)
            return False
        if order is None:
            self._keep_in_mind(version.version, digest)
        reason = _why_aside(version.version)
        if known is None or is_known:
            self._left = known or self._left
            self._withdraw(reason)
        elif self._passed_over != version.version:
            self._on_event("model.refused", {"version": version.version, "reason": reason, "source": "registry"})
        self._passed_over = version.version
        return True

    def _keep_in_mind(self, version: str, digest: str) -> None:
        """Note a rejection in this home: the next start may find the registry down."""
        try:
            set_aside(self._cache.root, SetAside(version=version, digest=digest, decided_at=utc_now().isoformat()))
        except ValueError:
            return  # Without a digest there is no bundle to note it of.
        except OSError as error:
            _log.warning("rejection_not_noted", version=version, reason=str(error))

    async def _go_back(self, order: SetAside) -> None:
        """Let go of what was set aside, then offer the cached bundle that takes its place if it can be trusted."""
        # In this order: while the other is verified, what was set aside enters nothing.
        self._withdraw(_why_aside(order.version))
        self._obeyed = order
        self._left = LastGood(digest=order.digest, version=order.version, gated=False)
        back = self._cache.traded(order.back_to)
        if back is None or found_aside(self._cache.root, back.version, back.digest) is not None:
            return
        bundle = await self._load_cached(back)
        if bundle is None or self._known is not None:
            return  # The registry may have named another meanwhile.
        self._known = back
        self._remember(back)
        self._offer(ActiveModel(bundle=bundle, version=back.version, gated=back.gated, source="cache"))

    async def _load_cached(self, noted: LastGood) -> Bundle | None:
        folder = self._cache.folder(noted.digest)
        try:
            bundle = await self._load(folder, digest=noted.digest)
            self._check_journaled(bundle)
        except BundleError as error:
            self._cache.discard(folder)
            self._on_event("model.refused", {"version": noted.version, "reason": str(error), "source": "cache"})
            return None
        return bundle

    async def _load(self, folder: Path, *, digest: str | None = None) -> Bundle:
        bundle = await asyncio.to_thread(
            load_bundle, folder, expected_fingerprint=self._fingerprint, expected_digest=digest
        )
        if bundle.manifest.timeframe != self._timeframe:
            raise BundleError(
                f"Bundle {folder} learned candles of {bundle.manifest.timeframe}, this worker follows "
                f"{self._timeframe}. Set QT_TIMEFRAME, or train on {self._timeframe}."
            )
        return bundle

    def _check_tags(self, version: ModelVersion, digest: str) -> None:
        tagged = version.tags.get("bundle_digest")
        if tagged is not None and tagged != digest:
            raise BundleError(
                f"Version {version.version} is tagged with bundle digest {tagged[:12]}, "
                f"its bundle has {digest[:12]}. Do not trade it; train again."
            )

    def _check_not_set_aside(self, version: ModelVersion, digest: str) -> None:
        if is_set_aside(found_aside(self._cache.root, version.version, digest), version.tags):
            raise BundleError(_why_aside(version.version))

    def _check_approval(self, version: ModelVersion, bundle: Bundle) -> None:
        """Journal by whose word a bundle is about to trade real money, or refuse it."""
        if not self._only_approved:
            return
        approval = require_approved(version, bundle.digest, venue=self._venue)
        self._check_pin(bundle)
        for event, detail in evidence_of(version, approval, bundle.digest, venue=self._venue):
            self._on_event(event, detail)
        self._journaled_approvals |= {bundle.digest}

    def _check_journaled(self, bundle: Bundle) -> None:
        """Refuse a cached bundle of which the journal does not say that it passed and was approved."""
        if not self._only_approved:
            return
        if bundle.digest not in self._journaled_approvals:
            raise BundleError(
                f"QT_MODE=live trades only what the journal says was approved; it says nothing of {bundle.digest}"
            )
        self._check_pin(bundle)

    def _check_pin(self, bundle: Bundle) -> None:
        if self._approved_digest is not None and bundle.digest != self._approved_digest:
            raise BundleError(
                f"QT_APPROVAL_FILE lets only bundle {self._approved_digest} trade, this one has {bundle.digest}"
            )

    def _offer(self, model: ActiveModel) -> None:
        self.wanted = True
        self.offered = model
        self.reason = f"model {model.version} ({model.label}) is ready"

    def _withdraw(self, reason: str) -> None:
        self.reason = reason
        if self.wanted or self._known is not None:
            self._on_event("model.absent", {"reason": reason})
        self.wanted = False
        self.offered = None
        self._known = None

    def _refuse(self, version: str, reason: str) -> None:
        earlier = self._refusals.get(version)
        pause = min(_RETRY_LIMIT_SECONDS, earlier.pause * 2) if earlier else _RETRY_SECONDS
        self._refusals[version] = _Refusal(reason, self._monotonic() + pause, pause)
        self.reason = f"version {version} was refused: {reason}"
        if earlier is None or earlier.reason != reason:
            self._on_event("model.refused", {"version": version, "reason": reason, "source": "registry"})

    def _registry_is_down(self, reason: str) -> None:
        self.reason = reason
        if not self._registry_down:
            self._registry_down = True
            self._on_event("model.registry_unavailable", {"reason": reason})

    def _registry_is_up(self) -> None:
        if self._registry_down:
            self._registry_down = False
            self._on_event("model.registry_available", {})


def _why_aside(version: str) -> str:
    return (
        f"version {version} was set aside by a rollback; to let it trade again delete its tag status in MLflow, "
        f"then run `qtctl promote {version}`"
    )
