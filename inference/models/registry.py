"""The model registry as the worker reads it: MLflow's REST API, and a cache of bundles that were verified."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from feature_store.json_text import UNREADABLE
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
        return await self._version("registered-models/alias", {"alias": alias})

    async def version_numbered(self, number: str) -> ModelVersion:
        """
        Return a version by its number.

        Raises:
            NothingPromotedError: There is none of that number.
        """
        return await self._version("model-versions/get", {"version": number})

    async def versions(self) -> list[Mapping[str, Any]]:
        """
        Return every version as MLflow describes it, the newest first; each with its aliases.

        Raises:
            NothingPromotedError: The model was never registered.
        """
        answer = await self._json("api/2.0/mlflow/registered-models/get", {"name": self._model_name})
        model = answer.get("registered_model", {})
        if not isinstance(model, Mapping):
            raise RegistryUnavailableError(f"MLflow at {self._url} answered without a model: {answer!r:.200}")
        aliases: dict[str, list[str]] = {}
        for one in self._listed(model, "aliases"):
            aliases.setdefault(str(one.get("version")), []).append(str(one.get("alias")))
        found: list[Mapping[str, Any]] = []
        query = {"filter": f"name = '{self._model_name}'", "max_results": "200"}
        while True:
            answer = await self._json("api/2.0/mlflow/model-versions/search", query)
            found += [
                {**one, "aliases": aliases.get(str(one["version"]), [])}
                for one in self._listed(answer, "model_versions")
                if str(one.get("version")).isdecimal()
            ]
            if not answer.get("next_page_token"):
                return sorted(found, key=lambda one: int(one["version"]), reverse=True)
            query["page_token"] = str(answer["next_page_token"])

    async def run(self, run_id: str) -> Mapping[str, Any]:
        """Return what was logged to a run: `params` and `metrics`, each a list of keys with values."""
        answer = await self._json("api/2.0/mlflow/runs/get", {"run_id": run_id})
        run = answer.get("run")
        data = run.get("data") if isinstance(run, Mapping) else None
        return data if isinstance(data, Mapping) else {}

    async def _version(self, path: str, query: Mapping[str, str]) -> ModelVersion:
        answer = await self._json(f"api/2.0/mlflow/{path}", {"name": self._model_name, **query})
        found = answer.get("model_version")
        if not isinstance(found, Mapping) or not found.get("version"):
            raise RegistryUnavailableError(f"MLflow at {self._url} answered without a model version: {answer!r:.200}")
        tags = {str(tag.get("key")): str(tag.get("value")) for tag in self._listed(found, "tags")}
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
        files = self._listed(answer, "files")
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
        except UNREADABLE:
            document = None
        if not isinstance(document, Mapping):
            raise RegistryUnavailableError(f"MLflow at {self._url} answered {status} without JSON")
        if status != 200:
            self._refused(status, document)
        return document

    def _listed(self, answer: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
        """Return the objects that an answer lists under a name, none where it says nothing of it."""
        found = answer.get(name) or []
        if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
            raise RegistryUnavailableError(
                f"MLflow at {self._url} answered with {name} that are no list: {found!r:.200}"
            )
        return found

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
    """Which cached bundle traded last, and as what; `earlier` are those that traded before it, the newest first."""

    digest: str
    version: str
    gated: bool
    earlier: tuple[LastGood, ...] = ()

    @property
    def before(self) -> LastGood | None:
        """What traded before it, if that is known."""
        return self.earlier[0] if self.earlier else None


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
        # Whoever writes there says why, where it cannot be made.
        with suppress(OSError):
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
        """Note which bundle trades and which did before, and let go of the oldest others."""
        self.root.mkdir(parents=True, exist_ok=True)
        last_good = replace(last_good, earlier=self._before(last_good))
        temporary = self._pointer.with_suffix(".tmp")
        temporary.write_bytes(msgspec.json.encode(last_good))
        temporary.replace(self._pointer)
        traded = {one.digest for one in last_good.earlier}
        others = [one for one in self.root.iterdir() if _DIGEST.fullmatch(one.name) and one.name != last_good.digest]
        # What traded last is what a rollback goes back to, however long ago it came here.
        others.sort(key=lambda one: (one.name in traded, one.stat().st_mtime))
        for folder in others[: -(_BUNDLES_KEPT - 1)]:
            shutil.rmtree(folder, ignore_errors=True)

    def _before(self, last_good: LastGood) -> tuple[LastGood, ...]:
        """Return what traded before a bundle, each once, as far as the note of it can be read."""
        noted = self._noted()
        if noted is None:
            return ()
        past = [replace(noted, earlier=()), *(replace(one, earlier=()) for one in noted.earlier)]
        same = (last_good.digest, last_good.version)
        return tuple(one for one in past if (one.digest, one.version) != same)[: _BUNDLES_KEPT - 1]

    def _noted(self) -> LastGood | None:
        try:
            return msgspec.json.decode(self._pointer.read_bytes(), type=LastGood)
        except (OSError, *UNREADABLE):
            return None

    def last_good(self) -> LastGood | None:
        """Return which bundle traded last, if that is known and the bundle is still here."""
        noted = self._noted()
        return noted if noted is not None and self.holds(noted.digest) else None

    def traded(self, digest: str) -> LastGood | None:
        """Return what a bundle traded as, if it did of late and is still here."""
        noted = self._noted()
        if noted is None or not self.holds(digest):
            return None
        return next((one for one in (noted, *noted.earlier) if one.digest == digest), None)

    def holds(self, digest: str) -> bool:
        """Tell whether a digest's bundle is here."""
        try:
            return self.folder(digest).is_dir()
        except BundleError:
            return False
