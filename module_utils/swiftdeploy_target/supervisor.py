"""supervisord as the process runtime's parent: started when it is not there, spoken to by XML-RPC.

The socket is a file of ours in a folder that nobody else enters, which is made sure of before every connection.
XML-RPC API: http://supervisord.org/api.html
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import shlex
import signal
import sys
import time
import xmlrpc.client
from pathlib import Path
from typing import Any, Dict, List, Tuple

from .command import run
from .files import keep_private
from .http import connect_unix

MARK = "SWIFTDEPLOY_STACK"
LONGEST_SOCKET_PATH = 80
TAIL_BYTES = 65536
# As in supervisord.conf.j2.
PLAIN_PATH = r"[A-Za-z0-9_/.@:,+=-]+"


class SupervisorError(Exception):
    """supervisord did not do what it was asked; the message is for a person."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        # Whoever could make a folder or a socket of this name would be told what to run, and believed.
        self.sock = connect_unix(Path(self._path), time.monotonic() + float(self.timeout or 0))
        self.sock.settimeout(self.timeout)


class _UnixTransport(xmlrpc.client.Transport):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__()
        self._path = path
        self._seconds = timeout

    def make_connection(self, host: Any) -> http.client.HTTPConnection:  # noqa: ARG002
        return _UnixConnection(self._path, self._seconds)


def socket_path(folder: Path) -> Path:
    """Where the supervisord of the stack in ``folder`` listens.

    The kernel takes 107 bytes for the path of a socket, and supervisord binds a longer name first. A folder that lies
    too deep, or whose name its configuration could take for something else, has its socket in a folder of this user's
    own below /tmp.
    """
    near = folder / "run" / "supervisor.sock"
    if len(os.fsencode(near)) <= LONGEST_SOCKET_PATH and re.fullmatch(PLAIN_PATH, str(near)):
        return near
    name = f"swiftdeploy-{os.getuid()}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]}"
    return Path("/tmp") / name / "supervisor.sock"  # noqa: S108


class Supervisor:
    """One stack's supervisord. ``folder`` holds supervisord.conf and run/supervisor.sock."""

    def __init__(self, folder: Path, program: str = "supervisord", timeout: float = 90.0) -> None:
        self.folder = folder
        self.program = program
        self.socket = socket_path(folder)
        transport = _UnixTransport(str(self.socket), timeout)
        self._rpc: Any = xmlrpc.client.ServerProxy("http://localhost", transport=transport).supervisor

    def answers(self) -> bool:
        """True when supervisord is there and running."""
        try:
            state = self._rpc.getState()
        except (OSError, xmlrpc.client.Error, http.client.HTTPException):
            return False
        return bool(state["statename"] == "RUNNING")

    def start(self, seconds: float = 15.0) -> bool:
        """Start supervisord unless it answers. True when it was started. Raises SupervisorError."""
        if self.answers():
            return False
        # Whatever an earlier supervisord left behind when it was killed still holds the ports.
        stop_orphans(self.folder)
        self._make_socket_folder()
        # Programs are started by the interpreter that runs this: one that is known to work here.
        # supervisord takes its path for words of a command.
        more = {"SWIFTDEPLOY_PYTHON": shlex.quote(sys.executable), MARK: str(self.folder)}
        words = [self.program, "-c", str(self.folder / "supervisord.conf")]
        # Its first line cannot name a Python whose path is long or odd.
        python = Path(self.program).with_name("python")
        words = [str(python), *words] if python.is_absolute() and python.exists() else words
        # Paths that could be read as something else are relative in its configuration.
        done = run(words, timeout=seconds, more=more, folder=str(self.folder))
        deadline = time.monotonic() + seconds
        while done.ok and time.monotonic() < deadline:
            if self.answers():
                return True
            time.sleep(0.02)
        raise SupervisorError(
            f"supervisord did not start from {self.folder}/supervisord.conf: {done.text or 'no answer'}. "
            f"Its log is {self.folder}/logs/supervisord.log"
        )

    def _make_socket_folder(self) -> None:
        folder = self.socket.parent
        try:
            keep_private(folder)
        except OSError as error:
            words = f"{folder} is not this user's own ({error.strerror}); remove it, it is where supervisord listens"
            raise SupervisorError(words) from error

    def info(self) -> Dict[str, Dict[str, Any]]:
        """Program name to {"state", "pid", "spawnerr", ...}; empty when supervisord is not there."""
        try:
            return {entry["name"]: entry for entry in self._rpc.getAllProcessInfo()}
        except (OSError, xmlrpc.client.Error, http.client.HTTPException):
            return {}

    def load(self, program: str) -> bool:
        """Make supervisord know the present configuration of ``program``. True when it changed.

        Only this program is touched: a change that is on disk for another one waits for its own turn.
        """
        added, changed, removed = self._call("reloadConfig")[0]
        if program in changed or program in removed:
            self.stop(program)
            self._call("removeProcessGroup", program)
        if program in added or program in changed:
            self._call("addProcessGroup", program)
            return True
        return program in removed

    def run(self, program: str) -> bool:
        """Start ``program`` unless it runs. True when it was started."""
        state = self.info().get(program, {}).get("state")
        if state in (10, 20):  # STARTING, RUNNING
            return False
        with self._unless("ALREADY_STARTED"):
            # Not waited for: readiness is judged by the caller's own question to the program.
            self._call("startProcess", program, False)
        return True

    def stop(self, program: str) -> bool:
        """Stop ``program`` and wait for its end. True when it ran."""
        if program not in self.info():
            return False
        stopped = True
        try:
            self._call("stopProcess", program, True)
        except SupervisorError as error:
            if "NOT_RUNNING" not in str(error):
                raise
            stopped = False
        return stopped

    def shutdown(self, seconds: float = 90.0) -> bool:
        """End supervisord and all its programs. True when there was anything to end."""
        was = self.answers()
        if was:
            pid = int(self._call("getPID"))
            self._call("shutdown")
            deadline = time.monotonic() + seconds
            while _alive(pid) and time.monotonic() < deadline:
                time.sleep(0.05)
        orphans = stop_orphans(self.folder)
        if self.socket.parent.parent != self.folder:
            with contextlib.suppress(OSError):
                self.socket.unlink(missing_ok=True)
                self.socket.parent.rmdir()
        return was or bool(orphans)

    def _call(self, method: str, *arguments: Any) -> Any:
        try:
            return getattr(self._rpc, method)(*arguments)
        except xmlrpc.client.Fault as fault:
            raise SupervisorError(
                f"supervisord: {method} {' '.join(map(str, arguments))}: {fault.faultString}"
            ) from fault
        except (OSError, http.client.HTTPException) as error:
            raise SupervisorError(
                f"supervisord at {self.socket} does not answer ({error}); run the playbook again to start it"
            ) from error

    @contextlib.contextmanager
    def _unless(self, word: str) -> Any:
        try:
            yield
        except SupervisorError as error:
            if word not in str(error):
                raise


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _state(pid) != "Z"


def _state(pid: int) -> str:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[0]


def marked_processes(folder: Path) -> List[Tuple[int, str]]:
    """(pid, command line) of every process that was started for the stack in ``folder``.

    nginx writes its title over its environment; its processes are known by that title and by their folder.
    """
    mark = f"{MARK}={folder}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            ours = mark in environment or (words.startswith("nginx: ") and (entry / "cwd").readlink() == folder)
        except OSError:
            continue
        if ours and _state(int(entry.name)) != "Z":
            found.append((int(entry.name), words.strip()))
    return found


def stop_orphans(folder: Path, seconds: float = 10.0) -> List[int]:
    """End the stack's processes that have lost their supervisord: TERM, then KILL. Answers their pids."""
    pids = [pid for pid, _words in marked_processes(folder)]
    for number, wait in ((signal.SIGTERM, seconds), (signal.SIGKILL, seconds)):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + wait
        while any(_alive(pid) for pid in pids) and time.monotonic() < deadline:
            time.sleep(0.02)
        if not any(_alive(pid) for pid in pids):
            break
    return pids


def tail(path: Path, lines: int) -> List[str]:
    """The last ``lines`` lines of a log file, from at most its last 64 KiB; empty when there is none.

    A line whose beginning is not among these is left out: half of a secret could not be told from any other text.
    """
    try:
        with path.open("rb") as stream:
            begin = max(0, stream.seek(0, os.SEEK_END) - TAIL_BYTES)
            stream.seek(begin)
            data = stream.read()
    except OSError:
        return []
    if begin:
        data = data.partition(b"\n")[2] or f"(a line of more than {TAIL_BYTES} bytes)".encode()
    return data.decode(errors="replace").splitlines()[-lines:]
