"""A moderation endpoint with OpenAI's interface, asked over HTTP in threads."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from email.message import Message as HttpHeaders
from http import HTTPStatus
from http.client import HTTPException
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit, urlunsplit

import orjson

from pipeline.errors import DependencyUnavailable, Misconfigured, SluiceError
from pipeline.evaluate.contenders import Answer, Pace, Point
from pipeline.evaluate.items import Item
from pipeline.events import UNSAFE

_TIMEOUT_S: Final = 30.0
_ATTEMPTS: Final = 6
_LONGEST_WAIT_S: Final = 30.0
_LIMIT_BYTES: Final = 1024 * 1024
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_CATEGORIES: Final = {
    "sexual": "S12", "sexual/minors": "S4", "hate": "S10", "hate/threatening": "S10",
    "violence": "S1", "violence/graphic": "S1", "illicit": "S2", "illicit/violent": "S2",
    "self-harm": "S11", "self-harm/intent": "S11", "self-harm/instructions": "S11",
}  # fmt: skip
"""Their category to ours; harassment has none."""


class EndpointFilter:
    """A moderation model by its URL; the key is sent there and nowhere else."""

    def __init__(self, url: str, model: str, key: str) -> None:
        """`url`: the base (.../v1) or the whole path; an empty key sends none.

        Raises Misconfigured for a URL that would show the key to others, and for a
        URL or a key that cannot be sent.
        """
        key = key.strip()
        parts = _checked(url, key)
        self.name = model or "endpoint"
        self.point = Point(name="its own decision")
        self.pace = Pace(batch=8, in_flight=1, sampled=20)
        self.facts: Mapping[str, str] = {
            "kind": "moderation endpoint",
            "host": parts.hostname or "",
            "model": model,
        }
        self._url = urlunsplit(parts._replace(path=_path(parts.path), fragment=""))
        self._model = model
        self._headers = {"Content-Type": "application/json"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        # A redirect could carry the key to another host, so none is followed; plain http
        # would show it to a proxy.
        handlers: list[Any] = [_NoRedirect]
        if parts.hostname in _LOOPBACK:
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)

    async def answer(self, _data: str, items: Sequence[Item]) -> list[Answer]:
        """Scores by category; `unsafe` is the highest of them.

        Raises DependencyUnavailable when it does not answer after several
        attempts, Misconfigured when it refuses or answers something else.
        """
        return list(await asyncio.gather(*map(self._ask, items)))

    async def _ask(self, item: Item) -> Answer:
        body = {"input": item.text} | ({"model": self._model} if self._model else {})
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return _answer(await asyncio.to_thread(self._post, orjson.dumps(body)))
            except _TryAgain as error:
                if attempt == _ATTEMPTS:
                    raise DependencyUnavailable(
                        f"endpoint {self.name} does not answer ({error.reason})",
                        remedy="Try again later, or with less data",
                    ) from None
                # Here and not in the thread, which nothing could wake.
                await asyncio.sleep(min(error.wait_s or 2.0**attempt / 2, _LONGEST_WAIT_S))
        raise AssertionError("the last attempt returns or raises")

    def _post(self, body: bytes) -> bytes:
        request = urllib.request.Request(self._url, data=body, headers=self._headers)  # noqa: S310
        try:
            with self._opener.open(request, timeout=_TIMEOUT_S) as reply:
                said = bytes(reply.read(_LIMIT_BYTES))
                cut = bool(reply.length) and len(said) < _LIMIT_BYTES
        except urllib.error.HTTPError as error:
            error.close()
            raise self._refused(error.code, error.headers) from None
        except (urllib.error.URLError, HTTPException, OSError) as error:
            raise _TryAgain(type(error).__name__) from None
        if cut:
            raise _TryAgain("the reply was cut off")
        return said

    def _refused(self, status: int, headers: HttpHeaders) -> Exception:
        if status == HTTPStatus.TOO_MANY_REQUESTS or status >= 500:
            after = headers.get("Retry-After", "")
            return _TryAgain(f"status {status}", float(after) if after.isdecimal() else 0.0)
        remedies = {401: "Check the variable named by --api-key-env", 404: "Check --endpoint"}
        return Misconfigured(
            f"endpoint {self.name} refused with status {status}",
            remedy=remedies.get(status, "Check --endpoint and --endpoint-model"),
        )


class _TryAgain(Exception):
    """The endpoint is busy or away; `wait_s` is what it asked for, or 0."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.reason, self.wait_s = reason, wait_s


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Leaves redirects as the errors they are here."""

    def redirect_request(self, *_: Any) -> None:
        """Never another request."""


def _checked(url: str, key: str) -> SplitResult:
    """The URL's parts; raises Misconfigured unless the key stays secret on its way.

    Neither is said again: a query may hold a key too.
    """
    parts = _split(url)
    if not (key.isascii() and key.isprintable()):
        raise Misconfigured(
            "the endpoint's key holds characters that no header can",
            remedy="Correct the variable named by --api-key-env",
        )
    if parts.username or parts.password:
        raise Misconfigured("--endpoint holds a password", remedy="Use --api-key-env instead")
    if key and parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise Misconfigured("--endpoint would send the key unencrypted", remedy="Use https")
    return parts


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        # Asking for the port checks it.
        plain = url.isascii() and url.isprintable() and " " not in url and parts.port != 0
    except ValueError:
        plain = False
    if not plain or parts.scheme not in {"http", "https"} or not parts.hostname:
        raise Misconfigured("--endpoint is not an http(s) URL", remedy="Write https://host/v1")
    return parts


def _path(given: str) -> str:
    """Where the moderation is, under a base or as it stands."""
    whole = given.rstrip("/").endswith("moderations")
    return given if whole else f"{given.rstrip('/')}/moderations"


def _answer(said: bytes) -> Answer:
    """Scores and decision of one reply; raises Misconfigured for another shape."""
    try:
        result = orjson.loads(said)["results"][0]
        given = {str(k): _share(v) for k, v in (result.get("category_scores") or {}).items()}
        flagged = result["flagged"]
        if not isinstance(flagged, bool):
            raise _unlike()
    except (orjson.JSONDecodeError, LookupError, TypeError, ValueError, AttributeError):
        raise _unlike() from None
    scores = {UNSAFE: max(given.values(), default=float(flagged))}
    for theirs, ours in _CATEGORIES.items():
        if theirs in given:
            scores[ours] = max(scores.get(ours, 0.0), given[theirs])
    return Answer(scores=scores, flagged=flagged)


def _share(value: Any) -> float:
    """A score as it must be; raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError
    return float(value)


def _unlike() -> SluiceError:
    return Misconfigured(
        "the endpoint's answer is not a moderation result",
        remedy="It must have results[0].flagged, true or false, and category_scores from 0 to 1",
    )
