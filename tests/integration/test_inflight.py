"""Requests in flight, as the bundled service tells them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from support.workspace import REPOSITORY, free_port, wait_until
from swiftdeploy_target import inflight


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """The service in canary mode, every answer of GET / delayed by one and a half seconds."""
    port = free_port()
    environment = {"MODE": "canary", "HOST": "127.0.0.1", "PORT": str(port), "STATE_DIR": str(tmp_path / "state")}
    with (tmp_path / "out.log").open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "swift_service"],
            cwd=REPOSITORY / "service",
            env={**os.environ, "APP_VERSION": "1.0.0", **environment},
            stdout=out,
            stderr=subprocess.STDOUT,
        )

    def ready() -> bool:
        assert process.poll() is None, (tmp_path / "out.log").read_text()
        return inflight.in_progress(f"127.0.0.1:{port}", "/metrics") == 0

    try:
        wait_until(ready, "the service answers")
        slow = {"mode": "slow", "duration": 1.5}
        requests.post(f"http://127.0.0.1:{port}/chaos", json=slow, timeout=10).raise_for_status()
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def test_slow_requests_are_counted_until_they_are_answered_and_scrapes_are_not(address: str) -> None:
    def ask(_: int) -> bool:
        return requests.get(f"http://{address}/", timeout=20).ok

    began = time.monotonic()
    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(ask, number) for number in range(3)]
        wait_until(lambda: inflight.in_progress(address, "/metrics") == 3, "all three are in flight")
        too_early = inflight.wait_idle(address, "/metrics", inflight.METRIC, time.monotonic() + 0.2)
        assert too_early == {"idle": False, "left": 3}
        waited = inflight.wait_idle(address, "/metrics", inflight.METRIC, time.monotonic() + 20)
        took = time.monotonic() - began
        assert all(answer.result() for answer in answers)
    assert waited == {"idle": True, "left": 0}
    assert took >= 1.5
    assert inflight.wait_idle(address, "/metrics", "no_such_gauge", time.monotonic() + 20)["idle"] is None
