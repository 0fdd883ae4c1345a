"""How the stack talks to its servers: JSON over HTTP, with every failure named."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

import aiohttp

from infra.stack.errors import ServiceDownError

_PAUSES_S = (0.2, 0.5, 1.0, 2.0)
_TIMEOUT = aiohttp.ClientTimeout(total=20.0, sock_connect=3.0)


class RequestRefusedError(ServiceDownError):
    """The server answers, but not with what was asked for."""


class NotFoundError(RequestRefusedError):
    """The server answers, but what was asked for is not there."""


class _BusyError(RequestRefusedError):
    """The server did nothing, because another writer held its database."""


class JsonApi:
    """One server's JSON interface."""

    def __init__(self, name: str, base_url: str) -> None:
        self.name = name
        self.base_url = base_url.rstrip("/")
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=_TIMEOUT)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, path: str, **query: str | int) -> Any:
        """Read one resource."""
        return await self._request("GET", path, params={name: str(value) for name, value in query.items()})

    async def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Create, search or change."""
        return await self._request("POST", path, json=body or {})

    async def _request(self, method: str, path: str, **how: Any) -> Any:
        """
        Send one request and decode its answer; a server that is busy for a moment is asked again.

        Raises:
            NotFoundError: There is no such thing.
            RequestRefusedError: The answer is not a success.
            ServiceDownError: There is no answer.
        """
        for pause_s in _PAUSES_S:
            try:
                return await self._ask(method, path, **how)
            except _BusyError:
                await asyncio.sleep(pause_s)
        return await self._ask(method, path, **how)

    async def _ask(self, method: str, path: str, **how: Any) -> Any:
        if self._session is None:
            raise RuntimeError("JsonApi is used inside `async with`")
        try:
            async with self._session.request(method, f"{self.base_url}{path}", **how) as response:
                text = await response.text()
                if response.status == 404:
                    raise NotFoundError(f"{self.name} has no {path}")
                if response.status >= 400:
                    found = f"{self.name} answered {response.status} to {method} {path}: {text[:300]}"
                    raise _BusyError(found) if response.status == 503 else RequestRefusedError(found)
                return await response.json(content_type=None) if text else None
        except (TimeoutError, aiohttp.ClientError, ValueError) as error:
            found = str(error) or type(error).__name__
            raise ServiceDownError(
                f"{self.name} does not answer at {self.base_url}: {found}; "
                "see `qtctl status`, and start it with `qtctl up`"
            ) from error
