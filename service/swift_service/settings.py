"""What the service is told through its environment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

MODES = ("stable", "canary")
# A delayed request holds a thread. So many may be held beside the ordinary threads of one worker.
MOST_DELAYED = 128
# Where the kernel says how many processes and threads this container may have: cgroup v2, v1.
PIDS_LIMITS = (Path("/sys/fs/cgroup/pids.max"), Path("/sys/fs/cgroup/pids/pids.max"))


class SettingsError(ValueError):
    """One or more variables are unusable; the text names each of them."""


@dataclass(frozen=True)
class Settings:
    """Checked settings. Times are in seconds; `workers` are processes, `threads` those of one worker."""

    name: str
    version: str
    mode: str
    host: str
    port: int
    workers: int
    threads: int
    shutdown_timeout: int
    state_dir: Path | None
    log_dir: Path | None

    @property
    def canary(self) -> bool:
        return self.mode == "canary"

    @property
    def bind(self) -> str:
        """The listen address as gunicorn writes it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Read and check the environment; an empty variable counts as unset. Raises SettingsError."""
    problems: list[str] = []

    def text(key: str, default: str) -> str:
        return environ.get(key) or default

    def whole(key: str, default: int, low: int, high: int) -> int:
        found = text(key, str(default)).strip()
        if found.isascii() and found.isdigit() and low <= int(found[:9]) <= high:
            return int(found)
        problems.append(f"{key} must be a whole number from {low} to {high}, found {found[:40]!r}")
        return default

    mode = text("MODE", "stable")
    if mode not in MODES:
        problems.append(f"MODE must be stable or canary, found {mode[:40]!r}")
    settings = Settings(
        name=text("APP_NAME", "app"),
        version=text("APP_VERSION", "unknown"),
        mode=mode,
        host=text("HOST", "0.0.0.0").strip("[]"),  # noqa: S104  nginx and the host's own probes reach it
        port=whole("PORT", 3000, 1, 65535),
        workers=whole("WEB_CONCURRENCY", 2, 1, 64),
        threads=whole("THREADS", 4, 1, 256),
        shutdown_timeout=whole("SHUTDOWN_TIMEOUT", 30, 1, 3600),
        state_dir=Path(environ["STATE_DIR"]) if environ.get("STATE_DIR") else None,
        log_dir=Path(environ["LOG_DIR"]) if environ.get("LOG_DIR") else None,
    )
    if problems:
        raise SettingsError("; ".join(problems))
    return settings


def most_delayed(settings: Settings, pids_limits: Iterable[Path] = PIDS_LIMITS) -> int:
    """How many requests of one worker `chaos slow` may hold back at the same time.

    These threads come on top of the ordinary ones, so health checks and scrapes always find a free one.
    They must fit into the container's limit of processes, or a worker would fail to start a thread and die.
    """
    if not settings.canary:
        return 0
    most = MOST_DELAYED
    for path in pids_limits:
        try:
            limit = int(path.read_text())
        except (OSError, ValueError):  # another kind of cgroup, or no limit ("max")
            continue
        # Half of it stays free: for health checks, for whoever looks into the container.
        spare = limit // 2 - settings.workers * (settings.threads + 1) - 1
        most = min(most, spare // settings.workers)
    return max(1, most)
