"""Print what identifies the release on this host: ``fingerprint.py STACK_FOLDER STACK_NAME``.

One line for each of its files, container and process. A switch, a restart and a rendered configuration change it; a
request, a log line, new policies and the time that passes do not.
"""

import hashlib
import subprocess
import sys
from pathlib import Path

FILES = ("state.json", "config/nginx.conf", "supervisord.conf", "docker-compose.yml", "programs/*.json")


def files(folder: Path) -> list[str]:
    """A line for each file of the release."""
    found = sorted(path for pattern in FILES for path in folder.rglob(pattern) if "opa" not in path.parts)
    return [f"{path} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in found]


def processes(folder: Path) -> list[str]:
    """A line for each process that has the stack's folder in its environment."""
    mark, found = f"SWIFTDEPLOY_STACK={folder}\0".encode(), []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (entry / "environ").read_bytes() + b"\0":
                started = (entry / "stat").read_text().rpartition(")")[2].split()[19]
                found.append(f"process {entry.name} since {started}")
        except OSError:
            continue
    return sorted(found)


def containers(name: str) -> list[str]:
    """A line for each container of the stack; none where there is no engine."""
    words = ["docker", "ps", "--all", "--quiet", "--no-trunc", "--filter", f"name=^swiftdeploy-{name}-"]
    try:
        ids = subprocess.run(words, capture_output=True, text=True, check=False).stdout.split()
    except FileNotFoundError:
        return []
    if not ids:
        return []
    words = ["docker", "inspect", "--format", "container {{.Name}} {{.Id}} since {{.State.StartedAt}}", *ids]
    return sorted(subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines())


if __name__ == "__main__":
    print(*files(Path(sys.argv[1])), *processes(Path(sys.argv[1])), *containers(sys.argv[2]), sep="\n")
