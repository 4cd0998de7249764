"""What a person sees of a run."""

from __future__ import annotations

import pytest

from swiftdeploy.display import Screen, can_show, clean, failure_lines, task_words, unreachable_words


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Watch:
    """A screen, its clock and what it printed."""

    def __init__(self, symbols: bool = True, details: bool = True) -> None:
        self.lines: list[str] = []
        self.kinds: list[str] = []
        self.clock = Clock()
        self.screen = Screen(self._take, symbols, details=details, clock=self.clock)

    def _take(self, text: str, kind: str) -> None:
        self.lines.append(" ".join(text.split()) if kind == "step" else text)
        self.kinds.append(kind)


def test_a_step_shows_the_time_since_the_hosts_previous_step() -> None:
    watch = Watch()
    watch.clock.now += 0.4
    watch.screen.step("web1", "OPA ready")
    watch.clock.now += 1
    watch.screen.step("web2", "OPA ready")
    watch.clock.now += 2
    watch.screen.step("web1", "release healthy")
    assert watch.lines == ["✓ web1 OPA ready 0.4 s", "✓ web2 OPA ready 1.4 s", "✓ web1 release healthy 3.0 s"]


def test_columns_make_room_for_the_longest_host() -> None:
    lines: list[str] = []
    screen = Screen(lambda text, _kind: lines.append(text), symbols=True)
    screen.host("web-with-a-long-name")
    screen.step("web1", "one")
    screen.step("web-with-a-long-name", "two")
    assert lines[0].index("one") == lines[1].index("two")


def test_without_symbols_words_do() -> None:
    watch = Watch(symbols=False)
    watch.screen.step("web1", "OPA ready")
    watch.screen.unreachable("web2", "no route")
    assert watch.lines[0].startswith("ok web1")
    assert watch.lines[1] == "failed web2  unreachable: no route"


def test_summaries_come_last_and_the_last_of_a_host_wins() -> None:
    watch = Watch()
    watch.screen.event("web1", {"event": "override", "summary": "override accepted"})
    watch.screen.event("web1", {"event": "deploy", "summary": "Deployment successful  web1  v1.0.0 (stable)  4.1 s"})
    watch.screen.event("web2", {"event": "deploy_blocked", "summary": "DENIED  web2  disk\nDENIED  web2  load"})
    watch.screen.event("web3", {"event": "status_scrape"})
    assert watch.lines == []
    watch.screen.finish(["web2"])
    assert watch.lines == [
        "Deployment successful  web1  v1.0.0 (stable)  4.1 s",
        "DENIED  web2  disk\nDENIED  web2  load",
    ]
    assert watch.kinds == ["good", "error"]


def test_a_failure_shows_at_the_end_with_what_and_why() -> None:
    watch = Watch()
    watch.screen.failure("web1", "Start the release", ["port 8080 is taken", "by nginx (pid 7)"])
    assert watch.lines == []
    watch.screen.finish(["web1"])
    assert watch.lines == [
        "✗ web1  Start the release",
        "    port 8080 is taken",
        "    by nginx (pid 7)",
        "FAILED  web1  port 8080 is taken",
    ]


def test_a_failure_that_was_rescued_is_not_shown() -> None:
    watch = Watch()
    watch.screen.failure("web1", "Ask OPA", ["refused"])
    watch.screen.finish([])
    assert watch.lines == []


def test_a_summary_that_says_it_went_wrong_stands_for_the_failures() -> None:
    watch = Watch()
    watch.screen.failure("web1", "Ask OPA", ["denied"])
    watch.screen.event("web1", {"event": "deploy_blocked", "summary": "DENIED  web1  disk"})
    watch.screen.failure("web1", "Stop", ["the deploy was blocked"])
    watch.screen.finish(["web1"])
    assert watch.lines == ["DENIED  web1  disk"]


def test_a_success_does_not_hide_what_failed_after_it() -> None:
    watch = Watch()
    watch.screen.event("web1", {"event": "deploy", "summary": "Deployment successful  web1"})
    watch.screen.failure("web1", "Unlock", ["no such lock"])
    watch.screen.finish(["web1"])
    assert watch.lines[-1] == "FAILED  web1  no such lock"
    assert not any("successful" in line for line in watch.lines)


def test_a_missing_record_is_never_hidden() -> None:
    watch = Watch()
    watch.screen.event("web1", {"event": "deploy_blocked", "summary": "DENIED  web1  disk"})
    watch.screen.failure("web1", "Make sure that the event is recorded", ["not written"], sticky=True)
    watch.screen.finish(["web1"])
    assert watch.lines[-1] == "FAILED  web1  not written"


def test_a_lost_host_shows_at_once_and_in_the_end() -> None:
    watch = Watch()
    watch.screen.unreachable("web1", "connection refused")
    assert watch.lines == ["✗ web1  unreachable: connection refused"]
    watch.screen.finish([])
    assert watch.lines[1:] == ["UNREACHABLE  web1  connection refused"]


def test_a_failed_play_without_a_known_failure_still_says_so() -> None:
    watch = Watch()
    watch.screen.step("web1", "one")
    watch.screen.finish(["web1"])
    assert watch.lines[-1].startswith("FAILED  web1")


def test_an_interrupted_run_shows_what_failed_until_then() -> None:
    watch = Watch()
    watch.screen.failure("web1", "Start", ["broken"])
    watch.screen.finish(None)
    assert watch.lines[-1] == "FAILED  web1  broken"


def test_beside_ansibles_own_output_only_summaries_are_added() -> None:
    watch = Watch(details=False)
    watch.screen.step("web1", "one")
    watch.screen.failure("web1", "Start", ["broken"])
    watch.screen.unreachable("web2", "no route")
    watch.screen.finish(["web1"])
    assert watch.lines == ["FAILED  web1  broken", "UNREACHABLE  web2  no route"]


def test_a_long_reason_is_whole_above_and_short_in_the_summary() -> None:
    watch = Watch()
    watch.screen.failure("web1", "Start", ["x" * 300])
    watch.screen.finish(["web1"])
    assert "    " + "x" * 300 in watch.lines
    assert len(watch.lines[-1]) < 130


@pytest.mark.parametrize(
    ("result", "lines"),
    [
        ({"msg": "port 8080 is taken\nstop it"}, ["port 8080 is taken", "stop it"]),
        ({"msg": ["one", "two"]}, ["one", "two"]),
        ({"msg": "Task failed: 'nope' is undefined"}, ["'nope' is undefined"]),
        ({"msg": "", "rc": 1}, ["no reason given; run with -v"]),
        ({"censored": "hidden", "msg": "secret"}, ["the reason is hidden, because the task has no_log"]),
        (
            {"msg": "non-zero return code", "rc": 3, "stderr": "bad\nworse", "stdout": "x"},
            ["a command ended with status 3", "bad", "worse"],
        ),
        ({"msg": "non-zero return code", "rc": 3, "stdout": "x"}, ["a command ended with status 3", "x"]),
        ({"results": [{"msg": "fine"}, {"failed": True, "msg": "no"}], "msg": "items failed"}, ["no"]),
        ({"results": [], "msg": "none"}, ["none"]),
        ({"msg": "\x1b[31mred\x1b[0m\x07"}, ["red"]),
    ],
)
def test_the_reason_of_a_failure(result: dict[str, object], lines: list[str]) -> None:
    assert failure_lines(result, "Start") == lines


@pytest.mark.parametrize(
    "result",
    [
        {"msg": "Task failed: Module failed: boom", "exception": "Traceback (most recent call last)"},
        {"msg": "MODULE FAILURE\nSee stdout/stderr", "module_stderr": "Traceback"},
        {"msg": "Module result deserialization failed: No start of json char found", "module_stdout": "Traceback"},
    ],
)
def test_a_crash_is_one_line_without_a_traceback(result: dict[str, object]) -> None:
    (line,) = failure_lines(result, "Ask OPA")
    assert line.startswith("internal error in Ask OPA")
    assert "Traceback" not in line


def test_many_failed_items_are_cut() -> None:
    lines = failure_lines({"results": [{"failed": True, "msg": f"no {number}"} for number in range(25)]}, "x")
    assert len(lines) == 21
    assert lines[-1] == "… and 5 more"


def test_names_and_words() -> None:
    assert task_words("record : Announce the event") == "Announce the event"
    assert task_words("") == "a task"
    assert unreachable_words({"msg": "Task failed: no\nroute"}) == "no route"
    assert unreachable_words({}) == "no answer"
    assert clean("a\x1b]0;title\x07b\tc\r\nd\x00") == "ab    c\nd"


@pytest.mark.parametrize(("encoding", "shown"), [("utf-8", True), ("ascii", False), (None, False), ("latin-1", False)])
def test_symbols_only_where_the_output_can_show_them(encoding: str | None, shown: bool) -> None:
    assert can_show("✓✗", encoding) is shown
