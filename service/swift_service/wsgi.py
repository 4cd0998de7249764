"""The application of one worker, as gunicorn imports it."""

from __future__ import annotations

import os
from pathlib import Path

from .app import create_app
from .chaos import ChaosFile
from .metrics import Metrics, ServiceCollector
from .server import SLOT, STARTED
from .settings import read_settings

if SLOT not in os.environ:
    raise RuntimeError("start the service with `python3 -m swift_service`, which prepares what workers share")

settings = read_settings(os.environ)
state_dir = Path(os.environ["STATE_DIR"])
chaos = ChaosFile(state_dir / "chaos.json")
facts = ServiceCollector(settings, chaos, started=float(os.environ[STARTED]))
app = create_app(settings, chaos, Metrics(state_dir, int(os.environ[SLOT]), facts), facts)
