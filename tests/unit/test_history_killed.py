"""Writers of one history that are killed at random: what was acknowledged is there once, whole, in one chain.

SWIFTDEPLOY_APPENDS says how many lines each writer appends; more than the few of the default makes it eight writers.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from swiftdeploy import history, history_file

WRITER = Path(__file__).resolve().parents[1] / "support" / "history_writer.py"
FEW = 100


class Writers:
    """Processes that append until all are done, started again when they were killed."""

    def __init__(self, path: Path, count: int, lines: int, max_size: int) -> None:
        self.path, self.lines, self.max_size = path, lines, max_size
        self.names = [f"w{number}" for number in range(count)]
        self.before: dict[str, int] = {}
        self.running = {name: self._start(name) for name in self.names}
        self.kills = 0

    def acknowledged(self, name: str) -> Path:
        return self.path.with_name(f"acknowledged-{name}")

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        self.acknowledged(name).touch()
        self.before[name] = self.acknowledged(name).stat().st_size
        words = [self.path, self.acknowledged(name), name, self.lines, self.max_size]
        return subprocess.Popen([sys.executable, str(WRITER), *map(str, words)])

    def strike(self, name: str, pause: float) -> None:
        """Kill one ``pause`` seconds after the first line since its start, unless it is done; start it again."""
        process, place = self.running[name], self.acknowledged(name)
        while process.poll() is None and place.stat().st_size == self.before[name]:
            time.sleep(0.001)
        # Nothing in the writer is to know of the moment.
        time.sleep(pause)
        process.kill()
        if process.wait() != 0:
            self.kills += 1
            self.running[name] = self._start(name)

    def ended(self) -> None:
        """Let go of those that are done."""
        for name in [name for name, process in self.running.items() if process.poll() is not None]:
            assert self.running.pop(name).returncode == 0, name


def test_writers_that_are_killed_lose_nothing_they_acknowledged(tmp_path: Path) -> None:
    lines = int(os.environ.get("SWIFTDEPLOY_APPENDS", FEW))
    many = lines > FEW
    chance = random.Random(lines)
    began = time.monotonic()
    writers = Writers(tmp_path / "history.jsonl", 8 if many else 3, lines, 200_000 if many else 4_000)
    while writers.running:
        writers.ended()
        if writers.running and (many or writers.kills < 12):
            writers.strike(chance.choice(list(writers.running)), chance.uniform(0, 0.3 if many else 0.02))
        else:
            time.sleep(0.01)
    seconds = time.monotonic() - began

    said = [name for writer in writers.names for name in writers.acknowledged(writer).read_text().split()]
    assert len(said) == lines * len(writers.names)
    present = Counter(record["run_id"] for record in history.read(writers.path))
    assert [name for name in said if present[name] != 1] == []
    unsaid = present.keys() - set(said)
    assert {present[name] for name in unsaid} <= {1}
    # A kill comes between a line and its acknowledgement at most once.
    assert len(unsaid) <= writers.kills
    outcome = history.verify(writers.path)
    assert outcome == history.VerifyResult(ok=True, records=present.total())
    closed = len(history_file.segments(writers.path))
    assert closed > 0
    assert writers.kills > 0
    torn = len(list(tmp_path.glob("history.jsonl.torn-*")))
    print(
        f"\n{len(said)} acknowledged lines of {len(writers.names)} writers, {writers.kills} kills, "
        f"{closed} closed files, {len(unsaid)} lines written and not acknowledged, {torn} torn lines, {seconds:.0f} s"
    )
