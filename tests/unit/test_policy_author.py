"""Who put a policy in force, as its record in the topic says."""

from __future__ import annotations

import getpass
import os
import socket

import pytest

from pipeline import wiring_policy


def test_the_author_is_the_user_on_this_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """By name."""
    monkeypatch.setattr(getpass, "getuser", lambda: "ann")
    assert wiring_policy._who() == f"ann@{socket.gethostname()}"


@pytest.mark.parametrize("error", [KeyError("uid not found"), OSError("no username")])
def test_a_user_without_a_name_is_a_number(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A container may run as a user that its passwd file does not list."""

    def nameless() -> str:
        raise error

    monkeypatch.setattr(getpass, "getuser", nameless)
    assert wiring_policy._who() == f"{os.getuid()}@{socket.gethostname()}"
