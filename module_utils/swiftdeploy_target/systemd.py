"""systemd as the process runtime's parent: template units that root installed, run by an ordinary user.

bootstrap.yml installs ``swiftdeploy-PROGRAM@.service``; the instance is the service's name. A polkit rule lets this
user start and stop exactly those. Enabling a unit cannot be allowed for some units alone, so which programs are to
run after a restart of the host is a file for each in ``wanted/``, and one unit of root's starts what it finds there.
States: https://www.freedesktop.org/software/systemd/man/latest/org.freedesktop.systemd1.html
"""

from __future__ import annotations

import os
import pwd
import time
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional

from .command import Finished, run
from .files import sync_folder, write_atomic
from .state import SLOTS
from .supervisor import SupervisorError, stop_orphans

PROGRAMS = ("nginx", *SLOTS, "opa")
UNITS = Path("/etc/systemd/system")
WANTED = "wanted"
PROPERTIES = "Id,ActiveState,SubState,MainPID,Result,NRestarts,ActiveEnterTimestampMonotonic"
# A program that has ended by itself counts as running again when it has lasted so long: one that ends again and again
# would otherwise be seen alive now and then.
SETTLED_SECONDS = 2.0
# Above the longest TimeoutStopSec that the units can have; systemd itself kills a program before.
STOP_SECONDS = 7300.0
START_SECONDS = 60.0
# supervisord's numbers, which whoever asks for a state knows.
STOPPED, STARTING, RUNNING, BACKOFF, STOPPING, FATAL = 0, 10, 20, 30, 40, 200
_STATES = {"active": RUNNING, "reloading": RUNNING, "activating": STARTING, "deactivating": STOPPING, "failed": FATAL}


class Units(NamedTuple):
    """What bootstrap.yml has installed: whether it serves this user and folder, and if not, why."""

    usable: bool
    detail: str


def unit_name(program: str, service: str) -> str:
    """The unit of a program of a service's stack."""
    return f"swiftdeploy-{program}@{service}.service"


def setting(text: str, key: str) -> Optional[str]:
    """The last value of ``key`` in the text of a unit file, whatever section it stands in."""
    found = [line.partition("=")[2].strip() for line in text.splitlines() if line.partition("=")[0].strip() == key]
    return found[-1] if found else None


def installed(home: Path, units: Path = UNITS, uid: Optional[int] = None) -> Units:
    """Whether the units are there and are for stacks below ``home`` and for this user."""
    if not Path("/run/systemd/system").is_dir():
        return Units(False, "systemd does not run this host")
    user = pwd.getpwuid(os.getuid() if uid is None else uid).pw_name
    for program in PROGRAMS:
        try:
            text = (units / f"swiftdeploy-{program}@.service").read_text(encoding="utf-8")
        except OSError:
            return Units(False, "bootstrap.yml has installed no units on this host")
        whose, where = setting(text, "User"), setting(text, "X-Home")
        if whose != user:
            return Units(False, f"the installed units are for the user {whose}, and this is {user}")
        if where is None or os.path.realpath(where) != os.path.realpath(home):
            return Units(False, f"the installed units are for the folder {where}, and this is {home}")
    return Units(True, "bootstrap.yml has installed its units")


def blocks(text: str) -> List[Dict[str, str]]:
    """What ``systemctl show`` printed of some units: properties by name, one mapping for each."""
    return [
        dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        for block in text.strip().split("\n\n")
        if block.strip()
    ]


def state_of(block: Dict[str, str], now: float) -> int:
    """supervisord's number for what systemd says of a unit; ``now`` in seconds of the monotonic clock."""
    state = _STATES.get(block.get("ActiveState", ""), STOPPED)
    if block.get("SubState") == "auto-restart":
        return BACKOFF
    since = now - int(block.get("ActiveEnterTimestampMonotonic") or 0) / 1e6
    ended = int(block.get("NRestarts") or 0) > 0
    return BACKOFF if state == RUNNING and ended and since < SETTLED_SECONDS else state


class Systemd:
    """One stack's units. ``folder`` is the stack's, named after the service. As `supervisor.Supervisor`."""

    def __init__(self, folder: Path, service: str) -> None:
        self.folder = folder
        self.service = service

    def answers(self) -> bool:
        """True when a program of the stack runs."""
        return any(entry["state"] not in (STOPPED, FATAL) for entry in self.info().values())

    def start(self) -> bool:
        """Make sure that nothing of another parent is in the way. systemd itself is there. True never."""
        if not self.answers():
            # Left by a supervisord that was killed; from inside a unit they could not be seen.
            stop_orphans(self.folder)
        return False

    def info(self) -> Dict[str, Dict[str, Any]]:
        """Program name to {"state", "pid", "spawnerr"}; empty when systemd gives no answer."""
        names = {unit_name(program, self.service): program for program in PROGRAMS}
        done = run(["systemctl", "show", f"--property={PROPERTIES}", *names])
        found: Dict[str, Dict[str, Any]] = {}
        for block in blocks(done.out) if done.ok else []:
            if block.get("Id") in names:
                found[names[block["Id"]]] = {
                    "state": state_of(block, time.monotonic()),
                    "pid": int(block.get("MainPID") or 0),
                    "spawnerr": block.get("Result", ""),
                }
        return found

    def load(self, program: str) -> bool:  # noqa: ARG002
        """Units are the same for every release: there is nothing to load. True never."""
        return False

    def run(self, program: str) -> bool:
        """Start ``program`` unless it runs, now and after each restart of the host. True when it was started."""
        mark = self.folder / WANTED / program
        if not mark.exists():
            mark.parent.mkdir(mode=0o755, exist_ok=True)
            write_atomic(mark, b"")
        state = self.info().get(program, {}).get("state")
        if state in (STARTING, RUNNING):
            return False
        if state == FATAL:
            self._call("reset-failed", [program])
        done = self._call("start", [program], START_SECONDS)
        if not done.ok:
            raise SupervisorError(self._complaint("start", program, done))
        return True

    def stop(self, program: str) -> bool:
        """Stop ``program`` and wait for its end. True when it ran."""
        self._forget(program)
        state = self.info().get(program, {}).get("state", STOPPED)
        if state == STOPPED:
            return False
        done = self._call("stop", [program], STOP_SECONDS)
        if not done.ok:
            raise SupervisorError(self._complaint("stop", program, done))
        # One that ended badly would be told of as failed for ever.
        self._call("reset-failed", [program])
        return bool(state != FATAL)

    def shutdown(self) -> bool:
        """End all programs of the stack. True when there was anything to end."""
        for program in PROGRAMS:
            self._forget(program)
        found = [program for program, entry in self.info().items() if entry["state"] != STOPPED]
        if found:
            # All at once: each has its own time to finish.
            done = self._call("stop", found, STOP_SECONDS)
            if not done.ok:
                raise SupervisorError(self._complaint("stop", found[0], done))
            self._call("reset-failed", found)
        return bool(stop_orphans(self.folder)) or bool(found)

    def _forget(self, program: str) -> None:
        """It is not to come back with the host."""
        mark = self.folder / WANTED / program
        if mark.exists():
            mark.unlink()
            sync_folder(mark.parent)

    def _call(self, verb: str, programs: List[str], seconds: float = 30.0) -> Finished:
        units = [unit_name(program, self.service) for program in programs]
        return run(["systemctl", "--no-ask-password", verb, *units], timeout=seconds)

    def _complaint(self, verb: str, program: str, done: Finished) -> str:
        unit = unit_name(program, self.service)
        said = done.text.splitlines()[0] if done.text else "no reason given"
        if "authentication" in done.text or "denied" in done.text.lower():
            return f"systemd does not let this user {verb} {unit} ({said}); run bootstrap.yml, which installs the rule"
        return (
            f"systemd could not {verb} {unit}: {said} "
            f"Its last lines are in {self.folder}/logs/{program}.log; root sees more with: systemctl status {unit}"
        )


def choose(wanted: str, in_use: Optional[str], units: Units) -> Dict[str, Any]:
    """Which parent the processes have: {"supervisor", "problem"}.

    ``wanted`` is auto, supervisord or systemd. What runs stays where it is: a second stack would want the same ports.
    """
    chosen = wanted if wanted != "auto" else in_use or ("systemd" if units.usable else "supervisord")
    problem = None
    if in_use not in (None, chosen):
        problem = f"the stack's processes run under {in_use}; run teardown.yml before changing to {chosen}."
    elif chosen == "systemd" and not units.usable:
        problem = (
            f"systemd cannot run the stack's processes: {units.detail}. Run bootstrap.yml for this user and folder."
        )
    return {"supervisor": chosen, "problem": problem}
