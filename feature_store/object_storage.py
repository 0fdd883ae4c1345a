"""The lake's files in an S3-compatible object store: read through pyarrow, replaced by conditional writes."""

from __future__ import annotations

import contextlib
import io
import os
import random
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import pyarrow as pa

from feature_store.errors import BadInputError, LakeUnavailableError
from feature_store.storage import ObjectPlace

if TYPE_CHECKING:
    from feature_store.storage import Change

_KEYS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_FORM = "s3://bucket/prefix, with ?endpoint_override=http://host:port for a store that is not AWS"
_PROBE = ".conditional-writes"
_MAGIC = b"PAR1"
_MARK = "written-by"
_TRIES = 60
_LONGEST_PAUSE_S = 0.5
_CONFLICTS = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
_MISSING = {"NoSuchKey", "404", "NotFound"}


@dataclass(frozen=True, slots=True)
class Address:
    """Where an object store is and what of it is ours: `s3://bucket/prefix?endpoint_override=…&region=…`."""

    bucket: str
    prefix: str
    endpoint: str | None
    region: str

    @classmethod
    def parse(cls, text: str) -> Address:
        """
        Read an address.

        Raises:
            BadInputError: It is not one, or it holds what belongs into the environment.
        """
        parts = urlsplit(text)
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        if parts.username or parts.password or {"access_key", "secret_key", "session_token"} & set(options):
            raise BadInputError(f"QT_LAKE must hold no keys; set {_KEYS} in the environment")
        unknown = set(options) - {"endpoint_override", "scheme", "region"}
        if parts.scheme != "s3" or not parts.netloc or unknown or parts.fragment:
            found = f"unknown options {', '.join(sorted(unknown))}" if unknown else repr(text)
            raise BadInputError(f"QT_LAKE must be a folder or {_FORM}; found {found}")
        endpoint = options.get("endpoint_override") or None
        if endpoint is not None and "://" not in endpoint:
            endpoint = f"{options.get('scheme', 'https')}://{endpoint}"
        if endpoint is not None and (
            urlsplit(endpoint).scheme not in {"http", "https"} or not urlsplit(endpoint).netloc
        ):
            raise BadInputError(f"The endpoint_override of QT_LAKE must be http(s)://host:port, found {endpoint!r}")
        region = options.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        return cls(parts.netloc, parts.path.strip("/"), endpoint, region or "us-east-1")


class ObjectStorage:
    """
    Months as objects. A writer reads one, and replaces it only if it is still the one that was read; else again.

    Keys come from the environment and are never shown.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self._has_conditions = False

    @property
    def root(self) -> ObjectPlace:
        """The place below which everything lies."""
        return ObjectPlace(PurePosixPath(self.address.bucket, self.address.prefix), self)

    def require(self) -> None:
        """
        Ask whether the bucket can be used.

        Raises:
            LakeUnavailableError: It cannot; the message says what to set or start.
        """
        with self._told():
            self._client.head_bucket(Bucket=self.address.bucket)

    def glob(self, folder: ObjectPlace, pattern: str) -> list[ObjectPlace]:
        """See Storage."""
        from pyarrow.fs import FileSelector, FileType  # noqa: PLC0415 - a local lake needs no object store

        selector = FileSelector(str(folder.key), allow_not_found=True, recursive=True)
        with self._told():
            found = self._files.get_file_info(selector)
        keys = [PurePosixPath(one.path) for one in found if one.type == FileType.File]
        depth = len(PurePosixPath(pattern).parts) + len(folder.parts)
        return [ObjectPlace(key, self) for key in sorted(keys) if len(key.parts) == depth and key.match(pattern)]

    def source(self, place: ObjectPlace) -> pa.BufferReader:
        """See Storage; pyarrow asks for size and content apart, so that a change in between shows at the end."""
        tag = None
        while True:
            with self._told(), self._files.open_input_file(str(place.key)) as file:
                before, tag = tag, file.metadata().get("ETag")
                content = file.readall()
            if content.endswith(_MAGIC) or tag == before:
                return pa.BufferReader(content)

    def exchange(self, place: ObjectPlace, change: Change) -> None:
        """
        See Storage.

        Raises:
            LakeUnavailableError: Others replaced the file again and again, or the store does not answer.
        """
        self._require_conditions()
        # Two writers may write the same bytes: whose they are, only a mark of one's own can tell.
        mark = uuid.uuid4().hex
        for turn in range(_TRIES):
            content, tag, writer = self._read(place)
            if writer == mark:
                return  # It was our own write that came first: its answer had been lost.
            write = change(None if content is None else pa.BufferReader(content))
            if write is None:
                return
            sink = io.BytesIO()
            write(sink)
            condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
            if self._put(place, sink.getvalue(), condition, mark):
                return
            time.sleep(random.uniform(0, min(_LONGEST_PAUSE_S, 0.01 * 2**turn)))
        raise LakeUnavailableError(f"{place} was replaced by others {_TRIES} times in a row; try again later")

    def size(self, place: ObjectPlace) -> int:
        """See Storage."""
        with self._told():
            return int(self._files.get_file_info(str(place.key)).size or 0)

    def remove(self, place: ObjectPlace) -> None:
        """See Storage."""
        with self._told():
            self._client.delete_object(Bucket=self.address.bucket, Key=self._key(place))

    def rename(self, place: ObjectPlace, name: str) -> ObjectPlace:
        """See Storage: a copy, and then the removal of what was copied, and of nothing newer."""
        aside = place.with_name(name)
        content, tag, _ = self._read(place)
        if content is None or tag is None:
            raise FileNotFoundError(str(place))
        self._put(aside, content, {})
        with self._told(), contextlib.suppress(_Conflict):
            self._call("delete_object", Key=self._key(place), IfMatch=tag)
        return aside

    def _key(self, place: ObjectPlace) -> str:
        return str(place.key.relative_to(self.address.bucket))

    def _read(self, place: ObjectPlace) -> tuple[bytes | None, str | None, str | None]:
        """Return an object's content, its tag and the mark of the write that made it; None for what is not there."""
        with self._told():
            try:
                answer = self._call("get_object", Key=self._key(place))
            except FileNotFoundError:
                return None, None, None
            return answer["Body"].read(), answer["ETag"], answer["Metadata"].get(_MARK)

    def _put(self, place: ObjectPlace, content: bytes, condition: dict[str, str], mark: str | None = None) -> bool:
        """Write an object on a condition; tell whether it was met."""
        marks = {} if mark is None else {"Metadata": {_MARK: mark}}
        with self._told():
            try:
                self._call("put_object", Key=self._key(place), Body=content, **condition, **marks)
            except (_Conflict, FileNotFoundError):
                return False
        return True

    def _call(self, method: str, **arguments: Any) -> Any:
        from botocore.exceptions import ClientError  # noqa: PLC0415 - an extra; see _client

        try:
            return getattr(self._client, method)(Bucket=self.address.bucket, **arguments)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in _CONFLICTS:
                raise _Conflict from None
            if code in _MISSING:
                raise FileNotFoundError(arguments.get("Key")) from None
            raise

    def _require_conditions(self) -> None:
        """A store that ignores conditions would lose candles without a word: ask it once to refuse."""
        if self._has_conditions:
            return
        probe = self.root / _PROBE
        # The first write may find nothing; the second must be refused.
        if self._put(probe, b"", {"IfNoneMatch": "*"}) and self._put(probe, b"", {"IfNoneMatch": "*"}):
            raise LakeUnavailableError(
                f"The object store at {self._where} ignores conditional writes (If-None-Match), so that two writers "
                "would overwrite each other; use one that honours them, or a local folder as QT_LAKE"
            )
        self._has_conditions = True

    @cached_property
    def _files(self) -> Any:
        from pyarrow.fs import S3FileSystem  # noqa: PLC0415 - a local lake needs no object store

        endpoint = urlsplit(self.address.endpoint or "https:")
        scheme: Any = endpoint.scheme
        access_key, secret_key, token = _keys()
        return S3FileSystem(
            access_key=access_key,
            secret_key=secret_key,
            session_token=token,
            region=self.address.region,
            scheme=scheme,
            endpoint_override=endpoint.netloc or None,
            connect_timeout=3,
            request_timeout=30,
        )

    @cached_property
    def _client(self) -> Any:
        # pyarrow cannot send a condition with a write; botocore can.
        try:
            from botocore.config import Config  # noqa: PLC0415 - an extra
            from botocore.session import Session  # noqa: PLC0415 - an extra
        except ModuleNotFoundError as error:
            raise LakeUnavailableError(
                "A lake in an object store needs botocore: pip install 'quantum-trader[s3]'"
            ) from error
        access_key, secret_key, token = _keys()
        return Session().create_client(
            "s3",
            region_name=self.address.region,
            endpoint_url=self.address.endpoint,
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            aws_session_token=token,
            config=Config(
                connect_timeout=3,
                read_timeout=30,
                retries={"mode": "standard", "total_max_attempts": 3},
                s3={"addressing_style": "path"} if self.address.endpoint else None,
            ),
        )

    @property
    def _where(self) -> str:
        return self.address.endpoint or f"AWS, region {self.address.region}"

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Say in a sentence what a store means that does not answer as it should."""
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - an extra

        try:
            yield
        except ClientError as error:
            raise LakeUnavailableError(self._refusal(error)) from None
        except BotoCoreError as error:
            raise LakeUnavailableError(
                f"The object store at {self._where} does not answer ({type(error).__name__}); start it, or correct "
                "the endpoint_override in QT_LAKE"
            ) from error
        except FileNotFoundError:
            raise
        except OSError as error:
            # pyarrow says the same of everything; botocore knows better.
            self.require()
            raise LakeUnavailableError(
                f"The object store at {self._where} failed ({str(error).splitlines()[0]}); try again"
            ) from error

    def _refusal(self, error: Any) -> str:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        code = error.response.get("Error", {}).get("Code", "")
        if status == 404:
            return f"There is no bucket {self.address.bucket!r} at {self._where}; make it, or correct QT_LAKE ({_FORM})"
        if status in {401, 403}:
            return (
                f"The object store at {self._where} refuses these keys for bucket {self.address.bucket!r} ({code}); "
                f"set {_KEYS} to keys that may list, read, write and delete there"
            )
        return f"The object store at {self._where} failed ({code or status}); try again"


class _Conflict(Exception):  # noqa: N818 - not an error: another writer came first
    """The condition of a write was not met."""


def _keys() -> tuple[str, str, str | None]:
    access_key, secret_key = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    if not access_key or not secret_key:
        raise LakeUnavailableError(f"A lake in an object store needs keys: set {_KEYS} in the environment")
    return access_key, secret_key, os.environ.get("AWS_SESSION_TOKEN") or None


def opened(text: str) -> ObjectPlace:
    """
    Return the place that an address names, once the store has answered.

    Raises:
        BadInputError: It is no address.
        LakeUnavailableError: The store cannot be used; the message says why.
    """
    storage = ObjectStorage(Address.parse(text))
    storage.require()
    return storage.root
