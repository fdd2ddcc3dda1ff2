"""Threads are set up before torch is imported, and never against the user."""

from __future__ import annotations

import os
import sys

import psutil
import pytest

from cogvlm2_lite.devices import prepare_threads, thread_count

VARIABLES = ("OMP_WAIT_POLICY", "OMP_NUM_THREADS")


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A process that has not imported torch and whose user has set nothing."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # so that it is put back whatever happens
        monkeypatch.delenv(name)
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "torch")
    return monkeypatch


def test_idle_threads_sleep_and_their_number_is_set(fresh: pytest.MonkeyPatch) -> None:
    prepare_threads()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    assert os.environ["OMP_NUM_THREADS"] == str(thread_count())


def test_what_the_user_has_set_stays(fresh: pytest.MonkeyPatch) -> None:
    fresh.setenv("OMP_WAIT_POLICY", "ACTIVE")
    fresh.setenv("OMP_NUM_THREADS", "3")
    prepare_threads()
    assert [os.environ[name] for name in VARIABLES] == ["ACTIVE", "3"]


def test_after_torch_is_imported_nothing_is_pretended(fresh: pytest.MonkeyPatch) -> None:
    fresh.setitem(sys.modules, "torch", sys)
    prepare_threads()
    assert not set(VARIABLES) & set(os.environ)


@pytest.mark.parametrize(
    ("cores", "threads"), [(1, 1), (2, 2), (3, 3), (4, 3), (16, 15), (None, 1)]
)
def test_one_core_of_four_or_more_is_left_alone(
    cores: int | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: cores)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(64), raising=False)
    assert thread_count() == threads
