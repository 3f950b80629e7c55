"""A Confluent-compatible schema registry over HTTP."""

from __future__ import annotations

import asyncio
import base64
import urllib.error
import urllib.request
from typing import Any, Final
from urllib.parse import quote

import orjson

from pipeline.errors import DependencyUnavailable, Misconfigured
from pipeline.settings import RegistrySettings

_JSON: Final = "application/vnd.schemaregistry.v1+json"


class Registry:
    """A `SchemaRegistry`; three requests do not warrant a client library."""

    def __init__(self, settings: RegistrySettings) -> None:
        self._settings = settings

    async def schema(self, schema_id: int) -> str | None:
        """The schema's JSON text, None if there is none; raises Retryable."""
        status, body = await self._request("GET", f"/schemas/ids/{schema_id}")
        return str(body["schema"]) if status == 200 else None

    async def register(self, subject: str, schema: str) -> int:
        """The id of a schema under a subject, registered if it was not."""
        path = f"/subjects/{quote(subject, safe='')}/versions"
        status, body = await self._request("POST", path, {"schema": schema})
        if status != 200:
            raise Misconfigured(
                f"the registry refuses {subject}: {body.get('message', status)}",
                remedy="Compare the schemas with `sluice schemas check`",
            )
        return int(body["id"])

    async def lookup(self, subject: str, schema: str) -> int | None:
        """The id that a schema has under a subject, None if it has none."""
        path = f"/subjects/{quote(subject, safe='')}"
        status, body = await self._request("POST", path, {"schema": schema})
        return int(body["id"]) if status == 200 else None

    async def _request(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        return await asyncio.to_thread(self._send, method, path, body)

    def _send(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, Any]:
        url = (self._settings.url or "").rstrip("/")
        request = urllib.request.Request(  # noqa: S310 - the operator's own address
            url + path,
            method=method,
            data=None if body is None else orjson.dumps(body),
            headers=self._headers(),
        )
        try:
            with urllib.request.urlopen(request, timeout=self._settings.timeout_s) as answer:  # noqa: S310
                return answer.status, orjson.loads(answer.read())
        except urllib.error.HTTPError as error:
            if error.code in (404, 409, 422):
                return error.code, _document(error.read())
            raise self._unavailable(f"HTTP {error.code}") from error
        except (OSError, ValueError) as error:
            raise self._unavailable(type(error).__name__) from error

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": _JSON, "Content-Type": _JSON}
        if self._settings.username and self._settings.password:
            secret = f"{self._settings.username}:{self._settings.password.get_secret_value()}"
            headers["Authorization"] = "Basic " + base64.b64encode(secret.encode()).decode()
        return headers

    def _unavailable(self, why: str) -> DependencyUnavailable:
        return DependencyUnavailable(
            f"the schema registry at {self._settings.url} does not answer ({why})",
            remedy="Start it or correct registry.url",
        )


def _document(body: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}
