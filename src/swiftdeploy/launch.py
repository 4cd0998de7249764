"""Shipped to the hosts of the process runtime. Start the program that a JSON file describes: ``launch.py FILE [logs]``.

FILE holds {"argv": [...], "env": {...}, "cwd": ..., "mark": ..., "limits": {resource: number}}. Names, values and
secrets of a manifest stay data this way; they never pass through supervisord's own configuration language or a shell,
nor into a unit of systemd's. With ``logs`` the program's output goes to the stack's log files: supervisord sees to that
itself, and systemd would open them as root, in a folder that is not root's.
"""

import contextlib
import json
import os
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

STACK, PROGRAM = "SWIFTDEPLOY_STACK", "SWIFTDEPLOY_PROGRAM"
MEGABYTE = 1 << 20
# nginx's standard output is the access log, which evidence is taken from.
LOG_BYTES, ACCESS_LOG_BYTES = 10 * MEGABYTE, 50 * MEGABYTE
KEEPERS_IGNORE = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def left_behind(mark: str, program: str) -> Iterator[int]:
    """Processes of an earlier start of ``program``: their parent was killed, and they hold its port.

    nginx writes its title over its environment; its processes are known by that title and by their folder.
    """
    wanted = {f"{STACK}={mark}".encode(), f"{PROGRAM}={program}".encode()}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            titled = program == "nginx" and (entry / "cmdline").read_bytes().startswith(b"nginx: ")
            if (titled and (entry / "cwd").readlink() == Path(mark)) or wanted <= set(
                (entry / "environ").read_bytes().split(b"\0")
            ):
                yield int(entry.name)


def limit(name: str, wanted: int) -> None:
    """Bound a resource of this process, as ``ulimit -HS`` does; never above the bound that holds already."""
    kind = getattr(resource, f"RLIMIT_{name.upper()}")
    _soft, hard = resource.getrlimit(kind)
    bound = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(kind, (bound, bound))


def log_pipe(path: Path, largest: int) -> int:
    """Where to write what is to be in the log file ``path``: a pipe to a keeper that ends when all writers have."""
    reader, writer = os.pipe()
    # A program that ends at once takes its unit down, with a signal to all in it: the keeper is to outlive it from its
    # first moment on. What is ignored stays so when it becomes another program.
    before = {number: signal.signal(number, signal.SIG_IGN) for number in KEEPERS_IGNORE}
    child = os.fork()
    if child == 0:
        # Its parent ends at once, so that the program has no child that it knows nothing of.
        if os.fork() == 0:
            os.dup2(reader, 0)
            keeper = str(Path(__file__).with_name("keep_log.py"))
            os.execv(sys.executable, [sys.executable, "-I", keeper, str(path), str(largest)])  # noqa: S606
        os._exit(0)
    for number, handler in before.items():
        signal.signal(number, handler)
    os.waitpid(child, 0)
    os.close(reader)
    return writer


def keep_logs(folder: Path, program: str) -> None:
    """Send what this process and its children print to the stack's log files."""
    if program == "nginx":
        out, errors = log_pipe(folder / "nginx.log", ACCESS_LOG_BYTES), log_pipe(folder / "nginx.err.log", LOG_BYTES)
    else:
        out = errors = log_pipe(folder / f"{program}.log", LOG_BYTES)
    os.dup2(out, 1)
    os.dup2(errors, 2)


def main() -> None:
    """Replace this process by the program."""
    wanted = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "USER") if name in os.environ}
    program = Path(sys.argv[1]).stem
    environment = {**kept, **wanted.get("env", {}), STACK: wanted["mark"], PROGRAM: program}
    for pid in left_behind(wanted["mark"], program):
        # QUIT lets nginx's workers finish what they are at; they give the port back at once.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGQUIT)
    for name, bound in wanted.get("limits", {}).items():
        limit(name, int(bound))
    if "logs" in sys.argv[2:]:
        keep_logs(Path(wanted["mark"]) / "logs", program)
    else:
        # supervisord's own is for its log files.
        os.umask(0o022)
    os.chdir(wanted.get("cwd") or wanted["mark"])
    os.execvpe(wanted["argv"][0], wanted["argv"], environment)  # noqa: S606


if __name__ == "__main__":
    main()
