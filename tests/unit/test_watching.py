"""What a run shows of its results where there is no terminal: lines, one table, JSON."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import signal
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from swiftdeploy import dashboard, status, watching
from swiftdeploy.watching import Notes, Terminal, Watching, can_live, wants_stdout
from unit.test_dashboard import well

ACTION = watching.ACTION


class Output(io.StringIO):
    """What JSON is written to."""

    encoding = "utf-8"  # type: ignore[assignment]


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    taken = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP, signal.SIGWINCH, signal.SIGALRM)
    before = {number: signal.getsignal(number) for number in taken}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def watch(tmp_path: Path, shown: list[str], out: Any = None, **options: Any) -> Watching:
    given = {"format": "text", "once": True, "interval": 5, "hosts": ["web1", "web2"], **options}
    return Watching({**given, "history": str(tmp_path / "h")}, shown.append, live=True, stdout=out or Output())


def refreshed(host: str, at: str = "2026-11-21T05:12:33.000Z", why: str | None = None) -> dict[str, Any]:
    view = well(host, at=at) if why is None else status.unanswered(host, at, "app", why)
    return {ACTION: view, "swiftdeploy_event": {"event": "status_scrape", "host": host, "timestamp": at}}


def test_one_table_has_all_hosts_and_those_that_were_never_asked(tmp_path: Path) -> None:
    shown: list[str] = []
    run = watch(tmp_path, shown)
    assert run.take("web1", ACTION, refreshed("web1"))
    assert shown == []
    run.finish()
    (text,) = shown
    assert "2 hosts: 1 no answer, 1 ok" in text
    assert "no answer since" in text
    assert "\x1b" not in text


def test_one_document_has_all_hosts(tmp_path: Path) -> None:
    shown: list[str] = []
    out = Output()
    run = watch(tmp_path, shown, out, format="json")
    run.take("web1", ACTION, refreshed("web1"))
    run.take("web2", ACTION, refreshed("web2", why="ssh: refused"))
    run.finish()
    made = json.loads(out.getvalue())
    assert shown == []
    assert (made["asked"], made["answered"]) == (2, 1)
    assert made["hosts"][0]["unanswered"]["why"] == "ssh: refused"


def test_a_line_of_json_for_each_refresh(tmp_path: Path) -> None:
    out = Output()
    run = watch(tmp_path, [], out, format="json", once=False)
    for host in ("web1", "web2", "web1"):
        run.take(host, ACTION, refreshed(host))
    found = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [(one["schema"], one["host"]) for one in found] == [(1, "web1"), (1, "web2"), (1, "web1")]


def test_a_block_of_lines_for_each_refresh_of_a_host(tmp_path: Path) -> None:
    shown: list[str] = []
    run = watch(tmp_path, shown, once=False)
    run.take("web1", ACTION, refreshed("web1"))
    run.take("web1", ACTION, refreshed("web1", "2026-11-21T05:12:38.000Z"))
    assert len(shown) == 2
    assert "2026-11-21T05:12:38.000Z" in shown[1]
    assert "✓ policy infrastructure allowed" in shown[1]


def test_since_when_a_host_is_silent_stays_until_it_answers(tmp_path: Path) -> None:
    out = Output()
    run = watch(tmp_path, [], out, format="json", once=False)
    for second, why in ((1, "down"), (2, "down"), (3, None), (4, "down")):
        run.take("web1", ACTION, refreshed("web1", f"2026-11-21T05:12:0{second}.000Z", why))
    since = [(json.loads(line)["unanswered"] or {}).get("since", "")[17:19] for line in out.getvalue().splitlines()]
    assert since == ["01", "01", "", "04"]


def test_a_refresh_that_failed_by_itself_is_a_host_without_an_answer(tmp_path: Path) -> None:
    out = Output()
    run = watch(tmp_path, [], out, format="json", once=False)
    assert run.take("web1", ACTION, {"failed": True, "msg": "Module failed: no space"})
    assert "no space" in json.loads(out.getvalue())["unanswered"]["why"]
    assert not run.take("web1", "debug", {"failed": True, "msg": "x"})
    assert not run.take("web1", ACTION, {"swiftdeploy_watch": {}})


def test_ctrl_c_ends_well_and_says_how_to_go_on(tmp_path: Path) -> None:
    shown: list[str] = []
    told: list[int] = []

    def ansible(number: int, _frame: Any) -> None:
        told.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, ansible)
    run = watch(tmp_path, shown, once=False)
    run.take("web1", ACTION, refreshed("web1"))
    with pytest.raises(SystemExit) as ended:
        os.kill(os.getpid(), signal.SIGINT)
    assert ended.value.code == 0
    # It would kill workers in the middle of a result, and Ansible would wait for these.
    assert told == []
    assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    assert shown[-1].startswith("Ended after 1 refresh of 1 host, 1 answers; go on: ansible-playbook status.yml")
    run.finish()
    assert len(shown) == 2


def test_a_signal_while_a_frame_is_drawn_draws_none_inside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    controlling, given = pty.openpty()
    # Without a size it would be the smallest there is, which shows no host.
    termios.tcsetwinsize(given, (24, 80))
    inside, deepest, drawn = 0, 0, dashboard.frame

    def frame(*words: Any, **named: Any) -> dashboard.Frame:
        nonlocal inside, deepest
        inside += 1
        deepest = max(deepest, inside)
        for _time in range(3 if inside == 1 else 0):
            os.kill(os.getpid(), signal.SIGWINCH)
        try:
            return drawn(*words, **named)
        finally:
            inside -= 1

    monkeypatch.setattr(dashboard, "frame", frame)
    with os.fdopen(given, "w", encoding="utf-8") as terminal:
        run = watch(tmp_path, [], terminal, once=False)
        try:
            run.take("web1", ACTION, refreshed("web1"))
        finally:
            run.close()
        os.write(given, b"the end")
        shown = b""
        # The kernel hands it on in parts and in its own time.
        while b"the end" not in shown and select.select([controlling], [], [], 10)[0]:
            shown += os.read(controlling, 65536)
    os.close(controlling)
    assert deepest == 1
    assert b"web1" in shown
    assert b"cannot be drawn" not in shown


def test_a_run_that_looks_once_is_interrupted_as_any_other(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    watch(tmp_path, [])
    assert signal.getsignal(signal.SIGINT) is before


def test_where_a_dashboard_can_be_drawn() -> None:
    class Tty(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert can_live(Tty(), {"TERM": "xterm"})
    assert not can_live(Tty(), {"TERM": "dumb"})
    assert not can_live(Tty(), {})
    assert not can_live(io.StringIO(), {"TERM": "xterm"})


def test_only_the_status_keeps_stdout_for_json() -> None:
    assert wants_stdout({"format": "json"}, ["context", "status"])
    assert not wants_stdout({"format": "json"}, ["operation"])
    assert not wants_stdout({}, ["status"])


def test_what_is_written_meanwhile_is_kept() -> None:
    notes = Notes(io.StringIO())
    notes.write("[WARNING]: one")
    notes.write("\n\ntwo\n")
    assert notes.lines() == ["[WARNING]: one", "two"]


def test_nothing_stays_in_a_buffer() -> None:
    end, begin = os.pipe()
    stream = Terminal(begin, "ascii")
    stream.write("a…b")
    assert os.read(end, 10) == b"a?b"
    os.close(begin)
    os.close(end)
