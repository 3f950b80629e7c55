"""Samples of the stack: an address that gives no page of metrics spoils none of the others."""

from __future__ import annotations

import io
import urllib.request
from http.client import BadStatusLine, InvalidURL
from typing import Any

import pytest

from loadtest import vitals
from loadtest.rows import Vitals
from pipeline.settings import Settings

METRICS = b"# TYPE nv_inference_request_success counter\nnv_inference_request_success 4\n"


def answers(monkeypatch: pytest.MonkeyPatch, pages: dict[str, bytes | Exception]) -> None:
    """What each address gives."""

    def opened(url: str, **_: Any) -> io.BytesIO:
        page = pages[url]
        if isinstance(page, Exception):
            raise page
        return io.BytesIO(page)

    monkeypatch.setattr(urllib.request, "urlopen", opened)


@pytest.mark.parametrize(
    "page",
    [
        OSError("nobody there"),
        BadStatusLine("gRPC"),
        InvalidURL("nonnumeric port"),
        ValueError("unknown url type"),
        b"<html><body>\nlive = yes\n</body></html>",
    ],
)
def test_an_address_of_something_else_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, page: bytes | Exception
) -> None:
    """Nobody there, a gRPC port, no address at all, a page of another kind."""
    answers(monkeypatch, {"bad": page, "good": METRICS})
    assert vitals.fetch(["bad"]) is None
    assert vitals.fetch(["bad", "good"]) == {"good": {"nv_inference_request_success": 4.0}}


def test_an_address_that_never_answered_is_named() -> None:
    """One answer is enough not to be."""
    urls = {"triton_urls": ("t1", "t2"), "worker_urls": ("w1",)}
    watch = vitals.Watch(Settings(), **urls, pids=dict)
    assert watch.silent == ["t1", "t2", "w1"]
    for triton in ({"t2": {"a": 1.0}}, None):
        watch.samples.append(Vitals(at_ns=0, late_ms=0.0, lag=None, triton=triton, worker=None))
    assert watch.silent == ["t1", "w1"]


@pytest.mark.parametrize("given", ["//me:pass@host:1/m", "//me:p/ss@word@host:1/m?token=p@ss"])
def test_an_address_is_named_without_its_secrets(given: str) -> None:
    """What is named stands in the summary and in the report."""
    watch = vitals.Watch(Settings(), triton_urls=(f"http:{given}",), worker_urls=(), pids=dict)
    assert watch.silent == ["http://host:1/m"]
