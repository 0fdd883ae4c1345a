"""Which bundle a person means: a folder, the first digits of a kept bundle's digest, a version, or an alias."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from feature_store.errors import BadInputError
from inference.domain.errors import BundleError, RegistryUnavailableError
from inference.models.bundle import bundle_digest
from inference.models.registry import BundleCache, MlflowRegistry, ModelVersion
from inference.settings import Settings
from inference.telemetry.registry_address import registry_address

_DIGITS = re.compile(r"[0-9a-f]{6,64}")
_NUMBER = re.compile(r"[0-9]{1,9}")
_ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,60}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where bundles are looked for: kept ones under `home`, versions at the MLflow server."""

    home: Path
    mlflow_url: str | None
    model_name: str

    @classmethod
    def of(cls, *, home: Path | None = None, mlflow_url: str | None = None) -> Places:
        """Return what is given, and of the rest what the environment says, else the defaults."""
        # Reading needs no venue, so the settings' rules about modes do not apply.
        fields = Settings.model_fields
        return cls(
            home=home or Path(os.environ.get("QUANTUM_HOME") or str(fields["home"].default)),
            mlflow_url=mlflow_url or os.environ.get("QT_MLFLOW_URL") or None,
            model_name=os.environ.get("QT_MODEL_NAME") or str(fields["model_name"].default),
        )

    @property
    def registry_url(self) -> str:
        """
        Address of the MLflow server: the one named, or that of the stack that runs in the home.

        Raises:
            RegistryUnavailableError: Neither is known.
        """
        url = registry_address(self.home, self.mlflow_url)
        if not url:
            raise RegistryUnavailableError(
                "No MLflow server is known to ask for versions and aliases; start one with `qtctl up`, set"
                " QT_MLFLOW_URL, or name a bundle's folder"
            )
        return url


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundBundle:
    """A bundle's folder, not verified yet; `version` where it came from the registry."""

    path: Path
    version: ModelVersion | None = None

    @property
    def name(self) -> str:
        """How people would name it."""
        return str(self.path) if self.version is None else f"version {self.version.version}"

    def digest(self) -> str:
        """
        Return the digest of the manifest that lies there.

        Raises:
            BundleError: There is none, or the registry tagged the version with another.
        """
        found = bundle_digest(self.path)
        tagged = found if self.version is None else self.version.tags.get("bundle_digest", found)
        if tagged != found:
            raise BundleError(
                f"{self.name.capitalize()} is tagged with bundle digest {tagged[:12]}, its bundle has {found[:12]}. "
                "Do not trade it; train again."
            )
        return found


@contextlib.contextmanager
def found_bundle(reference: str, places: Places) -> Iterator[FoundBundle]:
    """
    Find what a person named, and keep what was downloaded for it as long as the context lasts.

    Raises:
        BadInputError: It is none of these, or several kept bundles begin with these digits.
        BundleError: The version holds no bundle.
        NothingPromotedError: There is no such version or alias.
        RegistryUnavailableError: MLflow does not answer.
    """
    as_path = Path(reference).expanduser()
    if "/" in reference or as_path.is_dir():
        yield FoundBundle(path=as_path)
        return
    kept = _kept(reference, places.home / "bundles")
    if kept is not None:
        yield FoundBundle(path=kept)
        return
    if _NUMBER.fullmatch(reference) is None and _ALIAS.fullmatch(reference) is None:
        raise BadInputError(
            f"{reference!r} is no bundle's folder, digest, version or alias; see `qtctl models ls`, or name for example"
            " 3, champion or var/bundles/3f9a1c02"
        )
    with tempfile.TemporaryDirectory(prefix="qtctl-models-") as folder:
        yield asyncio.run(_downloaded(reference, places, Path(folder)))


def _kept(reference: str, root: Path) -> Path | None:
    if _DIGITS.fullmatch(reference) is None:
        return None
    found = sorted(one for one in root.glob(f"{reference}*") if (one / "manifest.json").is_file())
    if len(found) > 1:
        raise BadInputError(f"{len(found)} kept bundles begin with {reference}; name more digits")
    return found[0] if found else None


async def _downloaded(reference: str, places: Places, into: Path) -> FoundBundle:
    async with aiohttp.ClientSession() as session:
        registry = MlflowRegistry(session, url=places.registry_url, model_name=places.model_name)
        by_number = _NUMBER.fullmatch(reference) is not None
        version = await (registry.version_numbered(reference) if by_number else registry.version_of(reference))
        path, _ = await registry.download(version.version, into / "bundle", cache=BundleCache(into / "cache"))
    return FoundBundle(path=path, version=version)
