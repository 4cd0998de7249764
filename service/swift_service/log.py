"""Logs: one JSON object a line on standard output, and in LOG_DIR where one is given."""

from __future__ import annotations

import fcntl
import json
import logging
import logging.config
import os
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any

from gunicorn.glogging import Logger  # type: ignore[import-untyped]

LARGEST_FILE = 5 * 1024 * 1024


class JsonLines(logging.Formatter):
    """time, level, logger, pid, message; exception where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name.removesuffix(".error"),  # gunicorn's name for all it has to say
            "pid": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


class BoundedFile(WatchedFileHandler):
    """A log file that several processes append to, put aside once as `.1` when it has grown large.

    WatchedFileHandler follows when another process has put it aside; the lock lets only one of them do it.
    """

    def _open(self) -> Any:
        # Its owner and group alone: whatever a request holds may come to stand here.
        return open(
            self.baseFilename,
            self.mode,
            encoding=self.encoding,
            errors=self.errors,
            opener=lambda path, flags: os.open(path, flags, 0o640),
        )

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self.stream is not None and self.stream.tell() > LARGEST_FILE:
                self._put_aside()
        except OSError:
            self.handleError(record)
        super().emit(record)

    def _put_aside(self) -> None:
        path = Path(self.baseFilename)
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.stat().st_size > LARGEST_FILE:
                path.replace(path.with_suffix(".log.1"))


def log_config(log_dir: Path | None) -> dict[str, Any]:
    """The configuration for logging.config.dictConfig."""
    handlers: dict[str, Any] = {
        "out": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "json"}
    }
    if log_dir is not None:
        file = str(log_dir / "service.log")
        handlers["file"] = {"()": BoundedFile, "filename": file, "formatter": "json"}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonLines}},
        "handlers": handlers,
        "root": {"level": "INFO", "handlers": list(handlers)},
        "loggers": {"gunicorn.error": {"level": "INFO", "handlers": [], "propagate": True}},
    }


class ServerLog(Logger):  # type: ignore[misc]
    """gunicorn's logger with our format. Its own setting for that would switch the access log on."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        log_dir = os.environ.get("LOG_DIR")
        logging.config.dictConfig(log_config(Path(log_dir) if log_dir else None))
