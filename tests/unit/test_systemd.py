"""The process runtime under systemd: which parent it has, what it reads of the units, and the logs it keeps itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.workspace import wait_until
from swiftdeploy import launch, starting
from swiftdeploy_target import runtime, supervisor, systemd
from swiftdeploy_target.command import Finished

USABLE = systemd.Units(True, "bootstrap.yml has installed its units")
MISSING = systemd.Units(False, "bootstrap.yml has installed no units on this host")


@pytest.mark.parametrize(
    ("wanted", "in_use", "units", "chosen", "problem"),
    [
        ("auto", None, USABLE, "systemd", None),
        ("auto", None, MISSING, "supervisord", None),
        ("auto", "supervisord", USABLE, "supervisord", None),
        ("auto", "systemd", USABLE, "systemd", None),
        ("supervisord", None, USABLE, "supervisord", None),
        ("systemd", None, USABLE, "systemd", None),
        ("systemd", None, MISSING, "systemd", "Run bootstrap.yml"),
        ("systemd", "supervisord", USABLE, "systemd", "run teardown.yml before changing to systemd"),
        ("supervisord", "systemd", USABLE, "supervisord", "run teardown.yml before changing to supervisord"),
    ],
)
def test_what_runs_stays_where_it_is(
    wanted: str, in_use: str | None, units: systemd.Units, chosen: str, problem: str | None
) -> None:
    found = systemd.choose(wanted, in_use, units)
    assert found["supervisor"] == chosen
    assert (problem is None) == (found["problem"] is None)
    assert (problem or "") in (found["problem"] or "")


def units_for(folder: Path, home: Path, user: str) -> Path:
    """Unit files as bootstrap.yml writes them, as far as they are read."""
    for program in systemd.PROGRAMS:
        (folder / f"swiftdeploy-{program}@.service").write_text(f"[Service]\nUser={user}\nX-Home={home}\n")
    return folder


def test_units_are_taken_by_their_own_user_for_their_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "is_dir", lambda _self: True)
    home = tmp_path / "home"
    assert not systemd.installed(home, tmp_path, 0).usable
    assert systemd.installed(home, units_for(tmp_path, home, "root"), 0).usable
    assert "this is" in systemd.installed(tmp_path / "other", tmp_path, 0).detail
    assert "for the user nobody" in systemd.installed(home, units_for(tmp_path, home, "nobody"), 0).detail


def answering(monkeypatch: pytest.MonkeyPatch, states: dict[str, str], refuses: str = "") -> list[list[str]]:
    """systemctl as it answers; the calls that it got."""
    calls: list[list[str]] = []

    def run(arguments: list[str], timeout: float = 0) -> Finished:
        calls.append(arguments)
        if arguments[1] == "show":
            names = [word for word in arguments if word.endswith(".service")]
            blocks = [
                f"Id={name}\nActiveState={states.get(name.split('@')[0].rpartition('-')[2], 'inactive')}\nMainPID=7\n"
                for name in names
            ]
            return Finished(0, "\n".join(blocks), "")
        return Finished(1, "", refuses) if refuses else Finished(0, "", "")

    monkeypatch.setattr(systemd, "run", run)
    monkeypatch.setattr(systemd, "stop_orphans", lambda _folder: [])
    return calls


def test_a_program_that_is_started_comes_back_with_the_host_until_it_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = systemd.Systemd(tmp_path, "app")
    calls = answering(monkeypatch, {})
    assert parent.run("blue")
    assert calls[-1] == ["systemctl", "--no-ask-password", "start", "swiftdeploy-blue@app.service"]
    assert (tmp_path / "wanted" / "blue").exists()
    calls = answering(monkeypatch, {"blue": "active"})
    assert not parent.run("blue")
    assert [call[1] for call in calls] == ["show"]
    assert parent.stop("blue")
    assert not (tmp_path / "wanted" / "blue").exists()


def test_a_unit_that_has_failed_is_started_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = answering(monkeypatch, {"green": "failed"})
    assert systemd.Systemd(tmp_path, "app").run("green")
    assert [call[2] for call in calls[1:]] == ["reset-failed", "start"]


@pytest.mark.parametrize(
    ("block", "state"),
    [
        ({"ActiveState": "active", "SubState": "running", "NRestarts": "0"}, systemd.RUNNING),
        ({"ActiveState": "activating", "SubState": "start"}, systemd.STARTING),
        ({"ActiveState": "activating", "SubState": "auto-restart", "NRestarts": "3"}, systemd.BACKOFF),
        (
            {"ActiveState": "active", "NRestarts": "3", "ActiveEnterTimestampMonotonic": "99000000"},
            systemd.BACKOFF,
        ),
        (
            {"ActiveState": "active", "NRestarts": "3", "ActiveEnterTimestampMonotonic": "97000000"},
            systemd.RUNNING,
        ),
        ({"ActiveState": "failed"}, systemd.FATAL),
        ({"ActiveState": "inactive"}, systemd.STOPPED),
        ({}, systemd.STOPPED),
    ],
)
def test_a_program_that_ends_again_and_again_does_not_count_as_running(block: dict[str, str], state: int) -> None:
    assert systemd.state_of(block, 100.0) == state


def test_a_program_that_was_just_started_again_has_its_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    since = int(time.monotonic() * 1e6)
    block = f"Id=swiftdeploy-opa@app.service\nActiveState=active\nNRestarts=1\nActiveEnterTimestampMonotonic={since}\n"
    monkeypatch.setattr(systemd, "run", lambda _words: Finished(0, f"{block}MainPID=7\n", ""))
    process = runtime.make(
        {"runtime": "process", "supervisor": "systemd", "stack_dir": str(tmp_path / "app"), "service": "app"}
    )
    assert (process.running(), process.alive()) == ({"opa": False}, {"opa": True})


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("Failed to start x: Interactive authentication required.", "run bootstrap.yml"),
        ("Job for x failed because the control process exited with error code.", "systemctl status swiftdeploy-blue@"),
    ],
)
def test_a_refusal_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, words: str) -> None:
    answering(monkeypatch, {}, refuses=said)
    with pytest.raises(supervisor.SupervisorError, match=words):
        systemd.Systemd(tmp_path, "app").run("blue")


def test_nginx_may_be_refused_its_ports_and_nothing_else() -> None:
    port = (
        "nginx: [emerg] bind() to 0.0.0.0:80 failed (13: Permission denied)\nnginx: configuration file x test failed\n"
    )
    assert runtime.refused_ports_alone(port)
    assert not runtime.refused_ports_alone('nginx: [emerg] unknown directive "x" in nginx.conf:3\n')
    assert not runtime.refused_ports_alone(port + "nginx: [emerg] host not found in upstream\n")
    assert not runtime.refused_ports_alone("")


def started(folder: Path, argv: list[str], program: str = "blue") -> subprocess.CompletedProcess[str]:
    """The program as a unit starts it."""
    for entry in starting.program_files({"argv": argv}, program, str(folder), ""):
        place = folder / entry["path"]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(entry["content"])
    words = [sys.executable, "-I", str(folder / "launch.py"), str(folder / "programs" / f"{program}.json"), "logs"]
    return subprocess.run(words, capture_output=True, text=True, timeout=30, check=False, start_new_session=True)


def test_what_a_program_says_is_in_its_log_to_the_last_word(tmp_path: Path) -> None:
    done = started(tmp_path, ["/bin/sh", "-c", "echo said; echo complained >&2; exit 3"])
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")
    log = tmp_path / "logs" / "blue.log"
    wait_until(lambda: log.exists() and log.read_text() == "said\ncomplained\n", "the log")


def test_a_keeper_outlives_a_program_that_takes_its_unit_down_at_once(tmp_path: Path) -> None:
    # As systemd does it when the main process has ended: a signal to whoever is left.
    killing = "import os, signal; print('last words', flush=True); os.killpg(0, signal.SIGTERM)"
    assert started(tmp_path, [sys.executable, "-c", killing]).returncode == -signal.SIGTERM
    log = tmp_path / "logs" / "blue.log"
    wait_until(lambda: log.exists() and log.read_text() == "last words\n", "the log")


def test_the_access_log_is_apart_from_what_nginx_complains_of(tmp_path: Path) -> None:
    started(tmp_path, ["/bin/sh", "-c", "echo request; echo complaint >&2"], "nginx")
    logs = tmp_path / "logs"
    wait_until(lambda: (logs / "nginx.log").exists() and (logs / "nginx.log").read_text() == "request\n", "requests")
    wait_until(lambda: (logs / "nginx.err.log").read_text() == "complaint\n", "complaints")


def test_a_log_is_bounded_and_loses_no_line(tmp_path: Path) -> None:
    keeper = Path(launch.__file__).with_name("keep_log.py")
    log = tmp_path / "x.log"
    reader, writer = os.pipe()
    running = subprocess.Popen([sys.executable, "-I", str(keeper), str(log), "1000"], stdin=reader)
    os.close(reader)
    lines = [f"line {number:04}" for number in range(300)]
    for place in range(0, 300, 10):
        os.write(writer, ("\n".join(lines[place : place + 10]) + "\n").encode())
        seen = lines[place + 9]
        wait_until(lambda seen=seen: log.exists() and seen in log.read_text(), seen)
    assert running.poll() is None
    os.close(writer)
    assert running.wait(20) == 0, "it ends with the last writer"
    kept = [tmp_path / "x.log.2", tmp_path / "x.log.1", log]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.log", "x.log.1", "x.log.2"]
    assert all(path.stat().st_size <= 1100 for path in kept)
    told = "".join(path.read_text() for path in kept).splitlines()
    assert told == lines[-len(told) :]


def test_arguments_and_secrets_are_data_of_a_file_that_others_cannot_read(tmp_path: Path) -> None:
    files = starting.program_files({"argv": ["x"], "env": {"TOKEN": "geheim"}}, "blue", str(tmp_path), "")
    (described,) = [entry for entry in files if "geheim" in entry["content"]]
    assert (described["path"], described["mode"]) == ("programs/blue.json", "0600")
    assert json.loads(described["content"])["env"] == {"TOKEN": "geheim"}
