"""Start the service: `python3 -m swift_service`, settings from the environment (see service/README.md)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .server import load_settings

# gunicorn reads some of the variables itself and would answer a bad one with a traceback: check first.
load_settings()
root = Path(__file__).resolve().parent.parent
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
# The same process goes on as gunicorn, so it keeps its id and gets every signal (PID 1 in a container).
os.execv(sys.executable, [sys.executable, "-m", "gunicorn", "-c", str(root / "gunicorn.conf.py"), *sys.argv[1:]])  # noqa: S606
