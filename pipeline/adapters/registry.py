"""A Confluent-compatible schema registry over HTTP."""

from __future__ import annotations

import asyncio
import base64
import ssl
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any, Final
from urllib.parse import quote

import orjson

from pipeline.errors import DependencyUnavailable, Misconfigured, SluiceError
from pipeline.settings import RegistrySettings

_JSON: Final = "application/vnd.schemaregistry.v1+json"


class Forbidden(Misconfigured):
    """The registry knows this user, who may not have what was asked for."""


class Registry:
    """A `SchemaRegistry`; three requests do not warrant a client library."""

    def __init__(self, settings: RegistrySettings) -> None:
        self._settings = settings

    async def schema(self, schema_id: int) -> str | None:
        """The schema's JSON text, None if there is none for us; raises Retryable.

        A record names the id, so that a refusal must not stop who reads it: 403 is about
        this one schema, and 401 about credentials that were good when we started.
        """
        try:
            status, body = await self._request("GET", f"/schemas/ids/{schema_id}")
        except Forbidden:
            return None
        except Misconfigured as error:
            raise DependencyUnavailable(error.message, remedy=error.remedy) from error
        return str(self._told(body, "schema")) if status == 200 else None

    async def taken(self, schema_id: int) -> bool:
        """Whether there is a schema of this id, for us or for others; raises as `lookup`."""
        try:
            status, _ = await self._request("GET", f"/schemas/ids/{schema_id}")
        except Forbidden:
            return True
        return status == 200

    async def register(self, subject: str, schema: str) -> int:
        """The id of a schema under a subject, registered if it was not."""
        path = f"/subjects/{quote(subject, safe='')}/versions"
        status, body = await self._request("POST", path, {"schema": schema})
        if status != 200:
            raise Misconfigured(
                f"the registry refuses {subject}: {body.get('message', status)}",
                remedy="Compare the schemas with `sluice schemas check`",
            )
        return int(self._told(body, "id"))

    async def lookup(self, subject: str, schema: str) -> int | None:
        """The id that a schema has under a subject, None if it has none."""
        path = f"/subjects/{quote(subject, safe='')}"
        status, body = await self._request("POST", path, {"schema": schema})
        return int(self._told(body, "id")) if status == 200 else None

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
            try:
                with urllib.request.urlopen(request, timeout=self._settings.timeout_s) as answer:  # noqa: S310
                    return answer.status, orjson.loads(answer.read())
            except urllib.error.HTTPError as error:
                with error:
                    return self._refused(error.code), _document(error.read())
        except (OSError, ValueError, HTTPException) as error:
            raise self._failed(error) from error

    def _told(self, body: Any, key: str) -> Any:
        """What an answer says under a key; raises DependencyUnavailable when it lacks it."""
        if not isinstance(body, dict) or key not in body:
            raise self._unavailable(f"its answer has no {key}")
        return body[key]

    def _refused(self, status: int) -> int:
        """The status of an answer that says no; raises when it is not about what was asked."""
        if status in (404, 409, 422):
            return status
        if status in (401, 403):
            raise (Forbidden if status == 403 else Misconfigured)(
                f"the schema registry at {self._settings.url} refuses this user (HTTP {status})",
                remedy="Correct registry.username and registry.password, or grant it our subjects",
            )
        raise self._unavailable(f"HTTP {status}")

    def _failed(self, error: Exception) -> SluiceError:
        cause = getattr(error, "reason", error)
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Misconfigured(
                f"the certificate of the schema registry at {self._settings.url} is not trusted"
                f" ({cause.verify_message.rstrip('.')})",
                remedy="Name its authority's file in SSL_CERT_FILE, or correct registry.url",
            )
        return self._unavailable(type(cause if isinstance(cause, OSError) else error).__name__)

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
