"""What a person sees of a run."""

from __future__ import annotations

import pytest

from swiftdeploy.display import (
    NEXT_FAILED,
    Screen,
    advises,
    can_show,
    clean,
    duration,
    failure_lines,
    fold,
    task_words,
    unreachable_words,
)

NEXT = f"  next: {NEXT_FAILED}"


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Watch:
    """A screen, its clock and what it printed."""

    def __init__(self, symbols: bool = True, details: bool = True, width: int | None = None) -> None:
        self.lines: list[str] = []
        self.kinds: list[str] = []
        self.clock = Clock()
        self.screen = Screen(self._take, symbols, details=details, clock=self.clock, width=lambda: width)

    def _take(self, text: str, kind: str) -> None:
        self.lines.append(" ".join(text.split()) if kind in ("step", "cross") else text)
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


def test_a_host_that_waited_for_others_has_the_time_of_its_own_work() -> None:
    watch = Watch()
    watch.screen.batch()
    watch.clock.now += 20
    watch.screen.step("web1", "done")
    watch.screen.batch()
    watch.clock.now += 2
    watch.screen.step("web2", "done")
    assert watch.lines == ["✓ web1 done 20.0 s", "✓ web2 done 2.0 s"]


def test_without_symbols_words_do() -> None:
    watch = Watch(symbols=False)
    watch.screen.step("web1", "OPA ready")
    watch.screen.unreachable("web2", "Look", "no route")
    assert watch.lines == ["ok web1 OPA ready 0.0 s", "failed web2 Look: unreachable 0.0 s"]


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
        "DENIED  web2  disk",
        "DENIED  web2  load",
    ]
    assert watch.kinds == ["good", "error", "error"]


def test_a_failure_has_its_cross_at_once_and_its_reason_at_the_end() -> None:
    watch = Watch()
    watch.clock.now += 65
    watch.screen.failure("web1", "Start the release", ["port 8080 is taken", "by nginx (pid 7)"])
    assert watch.lines == ["✗ web1 Start the release 1 min 5 s"]
    watch.screen.finish(["web1"])
    assert watch.lines[1:] == ["FAILED  web1  port 8080 is taken", "  by nginx (pid 7)", NEXT]
    assert watch.kinds == ["cross", "error", "plain", "plain"]


def test_a_failure_that_says_what_to_do_gets_no_other_advice() -> None:
    watch = Watch()
    watch.screen.failure("web1", "Look", ["nothing runs", "next: ansible-playbook deploy.yml"])
    watch.screen.finish(["web1"])
    assert watch.lines[1:] == ["FAILED  web1  nothing runs", "  next: ansible-playbook deploy.yml"]


def test_what_fails_because_of_a_failure_has_no_cross_of_its_own() -> None:
    watch = Watch()
    watch.screen.failure("web1", "Start it", ["not healthy"])
    watch.screen.failure("web1", "Say why, and what serves", ["not healthy", "blue goes on serving"])
    watch.screen.failure("web2", "Start it", ["not healthy either"])
    assert watch.lines == ["✗ web1 Start it 0.0 s", "✗ web2 Start it 0.0 s"]
    watch.screen.step("web1", "cleaned up")
    watch.screen.failure("web1", "Unlock", ["no such lock"])
    assert watch.lines[3] == "✗ web1 Unlock 0.0 s"
    watch.screen.finish(["web1"])
    # The second tells what the first does, and more.
    assert watch.lines[4:] == [
        "FAILED  web1  not healthy",
        "  blue goes on serving",
        "FAILED  web1  no such lock",
        NEXT,
    ]


def test_a_failure_that_the_play_tells_itself_has_no_line() -> None:
    watch = Watch()
    watch.screen.failure("web1", "See whether it is there", ["no"], told=True)
    watch.screen.finish([])
    assert watch.lines == []


def test_a_step_that_came_to_a_no_has_a_cross_and_the_failure_behind_it_none() -> None:
    watch = Watch()
    watch.screen.step("web1", "policy: change denied", done=False)
    watch.screen.failure("web1", "Stop, because the decision is not to go on", ["frozen"])
    watch.screen.event("web1", {"event": "deploy_blocked", "summary": "DENIED  web1  frozen"})
    watch.screen.finish(["web1"])
    assert watch.lines == ["✗ web1 policy: change denied 0.0 s", "DENIED  web1  frozen"]


def test_the_reason_of_a_failure_that_was_rescued_is_not_told() -> None:
    watch = Watch()
    watch.screen.failure("web1", "Ask OPA", ["refused"])
    watch.screen.finish([])
    assert watch.lines == ["✗ web1 Ask OPA 0.0 s"]


def test_a_summary_that_says_it_went_wrong_stands_for_the_failures() -> None:
    watch = Watch()
    watch.screen.failure("web1", "Ask OPA", ["denied"])
    watch.screen.event("web1", {"event": "deploy_blocked", "summary": "DENIED  web1  disk"})
    watch.screen.failure("web1", "Stop", ["the deploy was blocked"])
    watch.screen.finish(["web1"])
    assert watch.lines == ["✗ web1 Ask OPA 0.0 s", "DENIED  web1  disk"]


def test_a_success_does_not_hide_what_failed_after_it() -> None:
    watch = Watch()
    watch.screen.event("web1", {"event": "deploy", "summary": "Deployment successful  web1"})
    watch.screen.failure("web1", "Unlock", ["no such lock"])
    watch.screen.finish(["web1"])
    assert watch.lines[-2:] == ["FAILED  web1  no such lock", NEXT]
    assert not any("successful" in line for line in watch.lines)


def test_a_missing_record_is_never_hidden() -> None:
    watch = Watch()
    watch.screen.event("web1", {"event": "deploy_blocked", "summary": "DENIED  web1  disk"})
    watch.screen.failure("web1", "Make sure that the event is recorded", ["not written"], sticky=True)
    watch.screen.finish(["web1"])
    assert watch.lines[-2:] == ["FAILED  web1  not written", NEXT]


def test_a_lost_host_shows_at_once_and_in_the_end() -> None:
    watch = Watch()
    watch.screen.unreachable("web1", "Measure the host", "connection refused")
    assert watch.lines == ["✗ web1 Measure the host: unreachable 0.0 s"]
    watch.screen.finish([])
    assert watch.lines[1] == "UNREACHABLE  web1  connection refused"
    assert watch.lines[2].startswith("  next: ansible web1 -m ansible.builtin.ping")


def test_a_failed_play_without_a_known_failure_still_says_so() -> None:
    watch = Watch()
    watch.screen.step("web1", "one")
    watch.screen.finish(["web1"])
    assert watch.lines[-2].startswith("FAILED  web1")
    assert watch.lines[-1].startswith("  next: ")


def test_an_interrupted_run_shows_what_failed_until_then() -> None:
    watch = Watch()
    watch.screen.failure("web1", "Start", ["broken"])
    watch.screen.finish(None)
    assert watch.lines[1:] == ["FAILED  web1  broken", NEXT]


def test_an_interrupted_run_says_what_it_was_in_the_middle_of() -> None:
    watch = Watch()
    for host in ("web1", "web2"):
        watch.screen.host(host)
        watch.screen.began(host, "promote")
    watch.screen.event("web1", {"event": "promote_step"})
    watch.screen.event("web2", {"event": "promote", "summary": "Promotion successful  web2"})
    watch.screen.finish(None)
    assert watch.lines == [
        "Promotion successful  web2",
        "INTERRUPTED  web1  in the middle of promote",
        "  next: run the same command again, which goes on where this one ended",
    ]


def test_beside_ansibles_own_output_only_summaries_are_added() -> None:
    watch = Watch(details=False)
    watch.screen.step("web1", "one")
    watch.screen.failure("web1", "Start", ["broken"])
    watch.screen.unreachable("web2", "Look", "no route")
    watch.screen.finish(["web1"])
    assert [line for line in watch.lines if "next: " not in line] == [
        "FAILED  web1  broken",
        "UNREACHABLE  web2  no route",
    ]


def test_in_a_terminal_long_lines_are_folded_and_times_stay_in_a_column() -> None:
    lines: list[str] = []
    clock = Clock()
    screen = Screen(lambda text, _kind: lines.append(text), symbols=True, clock=clock, width=lambda: 60)
    screen.step("web1", "one")
    clock.now += 3725
    screen.step("web1", "policy: change allowed, image allowed, infrastructure allowed (not applicable: inodes)")
    screen.failure("web1", "Start", ["a reason that is much longer than the sixty columns that this terminal has"])
    screen.finish(["web1"])
    assert max(map(len, lines)) <= 60
    assert lines[0].endswith("     0.0 s")
    assert lines[1].endswith("  1 h 2 min")
    assert len(lines[0]) == len(lines[1])
    assert lines[2].startswith(" " * 8 + "infrastructure allowed")
    assert " ".join(" ".join(lines).split()).count("sixty columns that this terminal has") == 1


def test_without_a_terminal_nothing_is_folded_or_cut() -> None:
    watch = Watch()
    watch.screen.failure("web1", "Start", ["x y " * 300])
    watch.screen.finish(["web1"])
    assert "FAILED  web1  " + "x y " * 300 in watch.lines


def test_folding_keeps_addresses_whole_and_columns_apart() -> None:
    address = "https://example.org/" + "x" * 60
    assert fold(f"see {address}", 40, 2) == ["see", f"  {address}"]
    assert fold("DENIED  web1  one  two three four", 26, 4) == ["DENIED  web1  one  two", "    three four"]
    assert fold("short", 40) == ["short"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.0, "0.0 s"),
        (0.34, "0.3 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min"),
        (60, "1 min"),
        (65.2, "1 min 5 s"),
        (3600, "1 h"),
        (3725.0, "1 h 2 min"),
    ],
)
def test_a_time_reads_like_one(seconds: float, words: str) -> None:
    assert duration(seconds) == words


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


@pytest.mark.parametrize(
    ("reason", "found"),
    [
        ("port 8080 is in use by nginx (pid 7): stop that program or change the port in the manifest.", True),
        ("there is no canary of this release: leave resume=true out to begin.", True),
        ("the copy of OPA is not whole; run this again", True),
        ("the Docker engine does not answer. Start it, or use the process runtime", True),
        ("next: ansible-playbook deploy.yml", True),
        ("green was not healthy after 5.8 s: it answers 404", False),
        ("the service refused to start", False),
        ("nginx refuses the rendered configuration, so it was not loaded", False),
    ],
)
def test_a_reason_that_says_what_to_do_is_known(reason: str, found: bool) -> None:
    assert advises([reason]) is found


def test_a_changed_host_key_is_told_in_a_sentence() -> None:
    wall = """Failed to connect to the host via ssh: @@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!
Offending ED25519 key in /home/me/.ssh/known_hosts:2
Host key for 10.0.0.11 has changed and you have requested strict checking.
Host key verification failed."""
    told = unreachable_words({"msg": wall})
    assert told.startswith("its SSH host key is not the one in /home/me/.ssh/known_hosts. ")
    assert "ssh-keygen -R 10.0.0.11 -f /home/me/.ssh/known_hosts" in told
    assert "@" not in told
