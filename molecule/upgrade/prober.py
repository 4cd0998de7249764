"""Ask a service all the time: ``prober.py start URL FILE`` does so in the background, ``prober.py stop FILE`` ends it.

``stop`` prints what was seen that should not have been, a line each, and how many requests there were.
Needs tests/ on PYTHONPATH.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from support.kill.prober import Prober
from support.workspace import wait_until


def ask(url: str, path: Path) -> None:
    """Ask until SIGTERM, then write what came of it to ``path``."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_words: ended.set())
    with Prober(url) as prober:
        wait_until(prober.seen.total, f"an answer of {url}")
        path.write_text(json.dumps({"pid": os.getpid()}))
        ended.wait()
    seen = {f"{version} ({mode})": count for (version, mode), count in prober.seen.items()}
    path.write_text(json.dumps({"seen": seen, "problems": prober.problems(set(prober.seen))}))


def start(url: str, path: Path) -> None:
    """Begin, and return once the first request was answered."""
    path.unlink(missing_ok=True)
    process = subprocess.Popen(
        [sys.executable, __file__, "ask", url, str(path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_until(lambda: path.is_file() or process.poll() is not None, f"an answer of {url}", 30)
    if not path.is_file():
        sys.exit(f"nothing answers at {url}")


def stop(path: Path) -> None:
    """End it, and print what came of it."""
    os.kill(json.loads(path.read_text())["pid"], signal.SIGTERM)
    wait_until(lambda: "seen" in path.read_text(), "the last requests", 60)
    print(path.read_text())


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["ask", url, name]:
            ask(url, Path(name))
        case ["start", url, name]:
            start(url, Path(name))
        case ["stop", name]:
            stop(Path(name))
        case _:
            sys.exit(__doc__)
