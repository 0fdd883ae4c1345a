"""Which model trades: follows the registry's alias, verifies in the background, offers a swap between two candles."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from inference.domain.errors import BundleError, NothingPromotedError, RegistryUnavailableError
from inference.models.bundle import Bundle, load_bundle
from inference.models.registry import BundleCache, LastGood, MlflowRegistry, ModelVersion
from inference.telemetry.logs import logger

_log = logger("models")
_RETRY_SECONDS = 60.0
_RETRY_LIMIT_SECONDS = 1800.0


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
    registry says that nothing is promoted. A registry that is down or a bundle that fails changes nothing else.
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
    ) -> None:
        self._cache = cache
        self._fingerprint = fingerprint
        self._timeframe = timeframe
        self._on_event = on_event
        self._monotonic = monotonic
        self._approved_digest = approved_digest
        self._only_approved = only_approved
        self._refusals: dict[str, _Refusal] = {}
        self._known: LastGood | None = None
        self._registry_down = False
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
        bundle = await self._load(path)
        self._check_approval(bundle, gated=False)
        self._offer(ActiveModel(bundle=bundle, version="local", gated=False, source=str(path)))

    async def load_last_good(self) -> None:
        """Offer what traded last, for a start while the registry is down or slow."""
        noted = self._cache.last_good()
        if noted is None:
            return
        folder = self._cache.folder(noted.digest)
        try:
            bundle = await self._load(folder, digest=noted.digest)
            self._check_approval(bundle, gated=noted.gated)
        except BundleError as error:
            self._cache.discard(folder)
            self._on_event("model.refused", {"version": noted.version, "reason": str(error), "source": "cache"})
            return
        self._known = noted
        self._offer(ActiveModel(bundle=bundle, version=noted.version, gated=noted.gated, source="cache"))

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

    async def _follow(self, registry: MlflowRegistry, version: ModelVersion) -> None:
        if self._is_known(version):
            self.wanted = True
            return
        refusal = self._refusals.get(version.version)
        if refusal is not None and self._monotonic() < refusal.retry_at:
            return
        scratch = self._cache.scratch()
        folder = scratch
        try:
            folder, digest = await registry.download(version.version, scratch, cache=self._cache)
            bundle = await self._load(folder, digest=digest)
            self._check_tags(version, bundle)
            self._check_approval(bundle, gated=version.is_gated)
            self._cache.adopt(folder, digest)
        except BundleError as error:
            self._cache.discard(folder)
            self._refuse(version.version, str(error))
            return
        finally:
            self._cache.discard(scratch)
        self._refusals.pop(version.version, None)
        self._known = LastGood(digest=digest, version=version.version, gated=version.is_gated)
        self._cache.remember(self._known)
        self._offer(ActiveModel(bundle=bundle, version=version.version, gated=version.is_gated, source="registry"))

    def _is_known(self, version: ModelVersion) -> bool:
        # A registry that was begun afresh counts its versions from 1 again: the number alone names no model.
        known = self._known
        return (
            known is not None
            and known.version == version.version
            and version.tags.get("bundle_digest", known.digest) == known.digest
        )

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

    def _check_tags(self, version: ModelVersion, bundle: Bundle) -> None:
        tagged = version.tags.get("bundle_digest")
        if tagged is not None and tagged != bundle.digest:
            raise BundleError(
                f"Version {version.version} is tagged with bundle digest {tagged[:12]}, "
                f"its bundle has {bundle.digest[:12]}. Do not trade it; train again."
            )

    def _check_approval(self, bundle: Bundle, *, gated: bool) -> None:
        if not self._only_approved:
            return
        if not gated:
            raise BundleError("QT_MODE=live trades only a version with the tag gate_verdict=passed")
        if bundle.digest != self._approved_digest:
            raise BundleError(
                f"QT_MODE=live trades only the approved bundle: QT_APPROVAL_FILE holds {self._approved_digest}, "
                f"this one has {bundle.digest}"
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
