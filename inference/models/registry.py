"""The model registry as the worker reads it: MLflow's REST API, and a cache of bundles that were verified."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from inference.domain.errors import BundleError, NothingPromotedError, RegistryUnavailableError

MANIFEST = "manifest.json"
_PLAIN_NAME = re.compile(r"[a-z0-9][a-z0-9_.]{0,60}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MAX_FILES = 32
_MAX_BYTES = 512 * 2**20
_CHUNK = 1 << 16
# Bundles kept here: enough to go back a few versions without asking the registry.
_BUNDLES_KEPT = 8
_TIMEOUT = aiohttp.ClientTimeout(total=60, connect=2, sock_read=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
    """A registered version and what was written beside it."""

    version: str
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_gated(self) -> bool:
        """Whether the gates passed it, as far as its tags say."""
        return self.tags.get("gate_verdict") == "passed"


class MlflowRegistry:
    """
    Reads one registered model over HTTP; three plain requests, no client library.

    Every method may raise `RegistryUnavailableError`: the server did not answer, or not sensibly.
    """

    def __init__(self, session: aiohttp.ClientSession, *, url: str, model_name: str) -> None:
        self._session = session
        self._url = url.rstrip("/")
        self._model_name = model_name

    async def version_of(self, alias: str) -> ModelVersion:
        """
        Return the version that an alias points to.

        Raises:
            NothingPromotedError: The alias points to none, or the model was never registered.
        """
        query = {"name": self._model_name, "alias": alias}
        answer = await self._json("api/2.0/mlflow/registered-models/alias", query)
        found = answer.get("model_version")
        if not isinstance(found, Mapping) or not found.get("version"):
            raise RegistryUnavailableError(f"MLflow at {self._url} answered without a model version: {answer!r:.200}")
        tags = {str(tag.get("key")): str(tag.get("value")) for tag in found.get("tags") or ()}
        return ModelVersion(version=str(found["version"]), tags=tags)

    async def download(self, version: str, into: Path, *, cache: BundleCache) -> tuple[Path, str]:
        """
        Bring a version's bundle here and return its folder and digest; one that is cached is not brought again.

        Nothing is verified here but names and sizes.

        Raises:
            BundleError: The version holds no bundle.
        """
        query = {"name": self._model_name, "version": version}
        answer = await self._json("api/2.0/mlflow/model-versions/get-download-uri", query)
        root = str(answer.get("artifact_uri", "")).removeprefix("mlflow-artifacts:").lstrip("/")
        if not root:
            raise RegistryUnavailableError(f"MLflow at {self._url} named no artifacts for version {version}")
        folder = f"{root}/artifacts/bundle"
        names = await self._file_names(folder, version)
        into.mkdir(parents=True)  # noqa: ASYNC240 - a folder takes no time worth a thread
        budget = _MAX_BYTES
        digest = hashlib.sha256()
        for name in [MANIFEST, *sorted(names - {MANIFEST})]:
            budget -= await self._fetch(f"{folder}/{name}", into / name, budget)
            if name == MANIFEST:
                digest.update((into / name).read_bytes())
                if (cached := cache.folder(digest.hexdigest())).is_dir():
                    return cached, digest.hexdigest()
        return into, digest.hexdigest()

    async def _file_names(self, folder: str, version: str) -> set[str]:
        answer = await self._json("api/2.0/mlflow-artifacts/artifacts", {"path": folder})
        files = answer.get("files") or []
        names = {str(file.get("path", "")).rsplit("/", 1)[-1] for file in files if not file.get("is_dir")}
        unusable = [name for name in names if _PLAIN_NAME.fullmatch(name) is None]
        if MANIFEST not in names or unusable or len(names) > _MAX_FILES:
            raise BundleError(
                f"Version {version} holds no bundle: {folder} was expected to hold {MANIFEST} and plain file names, "
                f"holds {sorted(names)[:8]}. Train it again."
            )
        return names

    async def _fetch(self, path: str, target: Path, budget: int) -> int:
        size = 0
        try:
            async with self._session.get(
                f"{self._url}/api/2.0/mlflow-artifacts/artifacts/{path}", timeout=_TIMEOUT
            ) as answer:
                if answer.status != 200:
                    raise RegistryUnavailableError(f"MLflow at {self._url} answered {answer.status} for {path}")
                with target.open("wb") as file:
                    async for chunk in answer.content.iter_chunked(_CHUNK):
                        size += len(chunk)
                        if size > budget:
                            raise BundleError(f"Bundle {path} is larger than {_MAX_BYTES >> 20} MiB; refused")
                        file.write(chunk)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._unavailable(error) from error
        return size

    async def _json(self, path: str, query: Mapping[str, str]) -> Mapping[str, Any]:
        try:
            async with self._session.get(f"{self._url}/{path}", params=dict(query), timeout=_TIMEOUT) as answer:
                content = await answer.read()
                status = answer.status
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._unavailable(error) from error
        try:
            document = msgspec.json.decode(content)
        except msgspec.DecodeError:
            document = None
        if not isinstance(document, Mapping):
            raise RegistryUnavailableError(f"MLflow at {self._url} answered {status} without JSON")
        if status != 200:
            self._refused(status, document)
        return document

    def _refused(self, status: int, document: Mapping[str, Any]) -> None:
        code, message = str(document.get("error_code", "")), str(document.get("message", ""))
        absent = code == "RESOURCE_DOES_NOT_EXIST" or ("alias" in message.lower() and "not found" in message.lower())
        if absent:
            raise NothingPromotedError(
                f"Nothing is promoted: MLflow at {self._url} has no such version of {self._model_name}; "
                "run `qtctl retrain`, or set the alias in the MLflow UI"
            )
        raise RegistryUnavailableError(f"MLflow at {self._url} answered {status} {code}: {message[:200]}")

    def _unavailable(self, error: BaseException) -> RegistryUnavailableError:
        found = str(error) or type(error).__name__
        return RegistryUnavailableError(
            f"MLflow at {self._url} does not answer ({found}); check QT_MLFLOW_URL and `qtctl status`"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LastGood:
    """Which cached bundle traded last, and as what."""

    digest: str
    version: str
    gated: bool


class BundleCache:
    """Verified bundles by digest under one folder; a folder appears whole or not at all."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._pointer = root / "last-good.json"

    def folder(self, digest: str) -> Path:
        """Return where a digest's bundle lives, whether or not it is there."""
        if _DIGEST.fullmatch(digest) is None:
            raise BundleError(f"A bundle digest has 64 hexadecimal digits, was {digest[:80]!r}")
        return self.root / digest

    def scratch(self) -> Path:
        """Return a new folder name beside the bundles for a download; leftovers of a crash are removed."""
        self.root.mkdir(parents=True, exist_ok=True)
        for leftover in self.root.glob("incoming-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        return self.root / f"incoming-{os.getpid()}-{secrets.token_hex(4)}"

    def adopt(self, folder: Path, digest: str) -> Path:
        """Take a verified folder into the cache."""
        target = self.folder(digest)
        if folder == target:
            return target
        if target.exists():
            shutil.rmtree(target)
        folder.replace(target)
        return target

    def discard(self, folder: Path) -> None:
        """Remove a bundle that failed its verification, so that a cached one is brought anew."""
        if folder.parent == self.root:
            shutil.rmtree(folder, ignore_errors=True)

    def remember(self, last_good: LastGood) -> None:
        """Note which bundle trades, and let go of the oldest others."""
        self.root.mkdir(parents=True, exist_ok=True)
        temporary = self._pointer.with_suffix(".tmp")
        temporary.write_bytes(msgspec.json.encode(last_good))
        temporary.replace(self._pointer)
        others = [one for one in self.root.iterdir() if _DIGEST.fullmatch(one.name) and one.name != last_good.digest]
        for folder in sorted(others, key=lambda one: one.stat().st_mtime)[: -(_BUNDLES_KEPT - 1)]:
            shutil.rmtree(folder, ignore_errors=True)

    def last_good(self) -> LastGood | None:
        """Return which bundle traded last, if that is known and the bundle is still here."""
        try:
            noted = msgspec.json.decode(self._pointer.read_bytes(), type=LastGood)
            return noted if self.folder(noted.digest).is_dir() else None
        except (OSError, msgspec.DecodeError, BundleError):
            return None
