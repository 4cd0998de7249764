"""A real Prometheus with data of its own, to ask what it makes of the same samples."""

from __future__ import annotations

import contextlib
import json
import math
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import requests

from support import debian

PATIENCE = 60.0
Values = dict[str, float]


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Prometheus:
    """A running Prometheus."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def _ask(self, query: str, at: float) -> list[dict[str, object]]:
        got = requests.get(
            f"{self.url}/api/v1/query", params={"query": query, "time": f"{at:.3f}"}, timeout=PATIENCE
        ).json()
        assert got["status"] == "success", got
        result: list[dict[str, object]] = got["data"]["result"]
        return result

    def query(self, query: str, at: float, by: str = "") -> Values:
        """The value of each series at ``at`` (unix seconds), by its label ``by``; NaN where Prometheus says so."""
        return {str(one["metric"].get(by, "")): float(one["value"][1]) for one in self._ask(query, at)}  # type: ignore[attr-defined, index]

    def samples(self, series: str, at: float) -> list[tuple[float, float]]:
        """Time and value of every stored sample of one series in the hour before ``at``."""
        found = self._ask(f"{series}[1h]", at)
        return [(float(when), float(value)) for when, value in found[0]["values"]] if found else []  # type: ignore[attr-defined]


@contextlib.contextmanager
def running(folder: Path, target: str = "", blocks: str = "") -> Iterator[Prometheus]:
    """Prometheus with its data below ``folder``: it scrapes ``target`` each second, or has ``blocks`` (OpenMetrics)."""
    where = debian.programs("prometheus", "prometheus", "promtool")
    data = folder / "data"
    data.mkdir(parents=True)
    if blocks:
        (folder / "samples").write_text(blocks)
        command = [where / "promtool", "tsdb", "create-blocks-from", "openmetrics", folder / "samples", data]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    jobs = [{"job_name": "test", "static_configs": [{"targets": [target]}]}] if target else []
    config = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": jobs}
    (folder / "prometheus.yml").write_text(json.dumps(config))
    port = free_port()
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                where / "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={data}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        limit = time.monotonic() + PATIENCE
        while not _ready(port):
            assert process.poll() is None, (folder / "prometheus.log").read_text()
            assert time.monotonic() < limit, f"Prometheus is not ready after {PATIENCE:g} s"
            time.sleep(0.05)
        yield Prometheus(port)
    finally:
        process.terminate()
        process.wait(PATIENCE)


def _ready(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/-/ready", timeout=PATIENCE).ok
    except requests.ConnectionError:
        return False


def same(ours: float | None, theirs: float, tolerance: float = 1e-9) -> bool:
    """Whether both say the same figure; None is their NaN."""
    if ours is None or math.isnan(theirs):
        return ours is None and math.isnan(theirs)
    return math.isclose(ours, theirs, rel_tol=tolerance, abs_tol=tolerance)
