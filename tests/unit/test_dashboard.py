"""The drawing of the status: columns by width, hosts by height, words beside every colour."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.cells import cell_len

from support.frames import svg
from swiftdeploy import dashboard, status, trend

NOW = datetime(2026, 11, 21, 5, 12, 33, tzinfo=UTC).timestamp()
NUMBERS = ("120.1", "0.00 %", "48 ms")


def stamp(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def slot(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "slot": name,
        "state": "live",
        "live": True,
        "problem": None,
        "mode": "stable",
        "version": "1.0.0",
        "release": "r1",
        "weight": 100,
        **dict.fromkeys(status.SLOT_FIGURES),
        "req_per_sec": 120.13,
        "error_rate": 0.0,
        "p50_latency_ms": 4.2,
        "p95_latency_ms": 20.1,
        "p99_latency_ms": 48.4,
        "chaos": "none",
        "uptime_seconds": 4000.0,
        "detail": None,
        **changes,
    }


def stopped(name: str) -> dict[str, Any]:
    return slot(name, state="stopped", live=False, weight=0, version="0.9.0", **dict.fromkeys([*status.SLOT_FIGURES]))


def allowed() -> dict[str, Any]:
    return {"outcome": "allowed", "reasons": []}


def well(host: str, **changes: Any) -> status.View:
    return {
        "host": host,
        "at": stamp(NOW),
        "answered": True,
        "state": "ok",
        "service": "app",
        "wanted": {"version": "1.0.0", "mode": "stable"},
        "live": "blue",
        "version": "1.0.0",
        "mode": "stable",
        "release": "r1",
        "drift": None,
        "canary": None,
        "slots": [slot("blue"), stopped("green")],
        "policy": {"infrastructure": allowed(), "canary": allowed()},
        "unanswered": None,
        "problems": [],
        **changes,
    }


def failing(host: str) -> status.View:
    canary = slot(
        "green",
        state="canary",
        live=False,
        mode="canary",
        version="2.0.0",
        weight=10,
        req_per_sec=12.0,
        error_rate=0.481,
        p99_latency_ms=612.0,
        chaos="error",
    )
    reason = "error rate is 48.10 %, maximum is 1.00 %"
    return well(
        host,
        state="bad",
        canary={"slot": "green", "weight": 10},
        slots=[canary, slot("blue", weight=90)],
        policy={"infrastructure": allowed(), "canary": {"outcome": "denied", "reasons": [reason]}},
        problems=[
            {"level": "bad", "what": "policy canary denied", "next": "ansible-playbook rollback.yml", "does": "back"},
            {"level": "attention", "what": "chaos error is on in green", "next": None, "does": None},
        ],
    )


def dead(host: str) -> status.View:
    return status.unanswered(host, stamp(NOW - 130), "app", "ssh: connect to host: Connection refused", " --limit x")


def trends(*hosts: str) -> trend.Trends:
    made = trend.Trends()
    for host in hosts:
        for number in range(60):
            record = {"req_per_sec": 100.0 + number, "error_rate": 0.0, "p99_latency_ms": 40.0}
            made.learn(
                [
                    {
                        "event": "status_scrape",
                        "host": host,
                        "service": "app",
                        "timestamp": stamp(NOW - 300 + 5 * number),
                        **record,
                    }
                ]
            )
    return made


def look(*views: status.View, known: trend.Trends | None = None, **changes: Any) -> dashboard.Look:
    return dashboard.Look(views, known or trends(), NOW, "05:12:33 UTC", **changes)


def drawn(what: dashboard.Look, width: int, height: int, *, color: bool = False, ascii_only: bool = False) -> str:
    console = dashboard.new_console(color=color, width=width, height=height)
    frame = dashboard.frame(what, console, width, height, fill=True)
    with console.capture() as captured:
        console.print(dashboard.in_ascii(frame) if ascii_only else frame)
    return captured.get()


def lines(text: str) -> list[str]:
    return text.removesuffix("\n").split("\n")


@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 60), (120, 40), (200, 50), (40, 10)])
def test_a_frame_has_exactly_the_size_of_the_terminal(width: int, height: int) -> None:
    views = [well("web1"), failing("web2"), dead("web3"), *(well(f"node{number}") for number in range(30))]
    shown = lines(drawn(look(*views, known=trends("web1"), footer="Ctrl-C ends"), width, height))
    assert len(shown) == height
    assert all(cell_len(line) <= width for line in shown)
    assert shown[-1].startswith("Ctrl-C ends")


@pytest.mark.parametrize("width", [80, 200])
def test_no_number_is_cut(width: int) -> None:
    text = drawn(look(failing("web2"), well("web1")), width, 40)
    for number in (*NUMBERS, "48.10 %", "612 ms", "10 %", "90 %"):
        assert number in text


def test_a_wide_terminal_has_every_column_and_the_sparklines_beside_them() -> None:
    text = drawn(look(well("web1"), known=trends("web1")), 200, 30)
    heading = next(line for line in lines(text) if "req/s" in line)
    columns = ["slot", "state", "version", "mode", "traffic", "req/s", "errors", "P50", "P95", "P99", "chaos", "up"]
    assert re.split(r"  +", heading.strip()) == [*columns, "req/s 5 min", "errors 5 min", "P99 5 min"]
    row = next(line for line in lines(text) if "● live" in line)
    assert "▁▁▁▁▁" in row
    assert " ".join(row.split()).startswith(
        "✓ blue ● live v1.0.0 stable 100 % 120.1 0.00 % 4 ms 20 ms 48 ms none 66 min"
    )


def test_80_columns_keep_what_matters_and_put_the_sparklines_below() -> None:
    text = drawn(look(well("web1"), failing("web2"), known=trends("web1", "web2")), 80, 40)
    heading = next(line for line in lines(text) if "req/s" in line)
    assert heading.split() == ["host", "slot", "state", "version", "mode", "traffic", "req/s", "errors", "P99"]
    trended = [line for line in lines(text) if "5 min max" in line]
    assert len(trended) == 2
    assert re.search(r"req/s [▂-█ ]*█ 159\.0  errors ▁+ 0\.00 %  P99 █+ 40 ms", trended[0]), trended[0]


def test_the_worst_is_first_and_names_the_next_command() -> None:
    shown = lines(drawn(look(well("web1"), dead("web3"), failing("web2")), 120, 40))
    rows = [line.split()[:2] for line in shown if line.startswith(("✓", "✗", "!"))]
    assert rows == [["✗", "web2"], ["✗", "web3"], ["✓", "web1"]]
    text = "\n".join(shown)
    assert "3 hosts: 1 bad, 1 no answer, 1 ok" in text
    assert "✗ policy canary denied: error rate is 48.10 %, maximum is 1.00 %" in text
    assert "→ ansible-playbook rollback.yml" in text
    assert "✗ no answer since 05:10:23 (2 min): ssh: connect to host: Connection refused" in text
    assert "✓ policy infrastructure allowed  ✓ policy canary allowed" in text


def test_hosts_that_do_not_fit_are_counted_and_the_bad_ones_are_told() -> None:
    views = [well(f"node{number:02}") for number in range(40)] + [failing("zebra")]
    text = drawn(look(*views), 80, 24)
    assert lines(text)[3].startswith("✗  zebra")
    assert "policy canary denied" in text
    shown = len([line for line in lines(text) if line.startswith("✓")])
    assert 5 < shown < 40
    assert f"+ {40 - shown} hosts, worst first: all of them ok" in text


def test_every_reason_has_a_line_and_where_room_is_short_the_first_is_told() -> None:
    view = failing("web2")
    view["policy"]["canary"]["reasons"] = ["first", "second", "third"]
    whole = drawn(look(view), 80, 30)
    assert re.search(r"✗ policy canary denied: first *\n +second *\n +third", whole)
    short = drawn(look(view, *(well(f"node{number:02}") for number in range(40))), 80, 20)
    assert "✗ policy canary denied: first (+ 2 more)" in short
    assert "second" not in short


def test_a_sentence_that_is_folded_hangs_behind_its_mark() -> None:
    view = failing("web2")
    view["policy"]["canary"]["reasons"] = ["one " * 40, "two " * 20]
    text = drawn(look(view), 60, 30)
    assert re.search(
        r"\n {3}✗ policy canary denied: one( one)+ *(\n {5}one( one)+ *){2,}(\n {5}two( two)+ *){2}\n {3}! chaos", text
    ), text
    assert max(map(cell_len, lines(text))) <= 60


def test_a_canary_that_is_well_names_both_ways_and_a_denied_one_only_the_way_back() -> None:
    assert "goes on" not in drawn(look(failing("web2")), 120, 30)
    paused = well("web1", canary={"slot": "green", "weight": 10})
    text = drawn(look(paused), 160, 30)
    assert "canary in green has 10 %: promote.yml -e mode=canary -e resume=true goes on, rollback.yml goes back" in text


@pytest.mark.parametrize("width", range(60, 90))
def test_no_line_ends_between_a_figure_and_its_unit(width: int) -> None:
    view = failing("web2")
    view["policy"]["canary"]["reasons"] = [
        "at the proxy, error rate is 48.10 %, maximum is 1.00 %; P99 latency is 612 ms"
    ]
    text = drawn(look(view), width, 30)
    for figure in ("48.10 %,", "1.00 %;", "612 ms"):
        assert figure in text


def test_a_crowd_of_bad_hosts_is_not_said_to_be_well() -> None:
    text = drawn(look(*(failing(f"node{number:02}") for number in range(40))), 80, 20)
    (rest,) = re.findall(r"\+ (\d+) hosts, worst first: (\d+) of them not ok", text)
    assert rest[0] == rest[1]


def test_the_screen_needs_no_colour() -> None:
    views = (well("web1"), failing("web2"), dead("web3"))
    plain = drawn(look(*views), 120, 40)
    assert "\x1b" not in plain
    colored = drawn(look(*views), 120, 40, color=True)
    assert "\x1b[1;31m" in colored
    assert re.sub(r"\x1b\[[0-9;]*m", "", colored) == plain


def test_the_screen_needs_no_unicode() -> None:
    views = (well("web1"), failing("web2"), dead("web3"))
    known = trends("web1", "web2")
    plain = drawn(look(*views, known=known), 120, 40, ascii_only=True)
    assert plain.isascii()
    assert "x policy canary denied" in plain
    assert "* live" in plain
    assert [len(line) for line in lines(plain)] == [
        len(line) for line in lines(drawn(look(*views, known=known), 120, 40))
    ]


def test_a_host_in_waiting_and_an_empty_one() -> None:
    empty = well("web1", state="empty", live=None, slots=[], policy={}, version=None)
    text = drawn(look(empty, status.waiting("web2")), 80, 20)
    assert "nothing is deployed here: run ansible-playbook deploy.yml" in text
    assert re.search(r"·  web2 +- +asking", text)


def test_a_host_alone_that_gives_no_answer_has_no_empty_table() -> None:
    known = look(dead("web3"), quiet=True)
    (header, _rule, why, command) = dashboard.text(known, symbols=True).splitlines()
    assert header.split()[:5] == ["SwiftDeploy", "app", "web3", "no", "answer"]
    assert why.strip().startswith("✗ no answer since 05:10:23 (2 min): ssh")
    assert command.strip().startswith("→ ansible web3")


def test_the_last_events_are_of_these_hosts_and_the_newest_is_first() -> None:
    known = trends("web1")
    known.learn([{"event": "teardown", "host": "web1", "service": "neighbour", "timestamp": stamp(NOW)}])
    for number, (host, name) in enumerate([("web1", "deploy"), ("other", "deploy"), ("web1", "promote_blocked")]):
        at = stamp(NOW - 100 + number)
        known.learn(
            [{"event": name, "host": host, "timestamp": at, "version": "2.0.0", "mode": "canary", "reason": "no"}]
        )
    shown = lines(drawn(look(well("web1"), known=known), 80, 30))
    begin = next(number for number, line in enumerate(shown) if line.startswith("last events"))
    assert shown[begin + 1].split() == ["11-21", "05:10:55", "promote_blocked", "v2.0.0", "(canary)", "no"]
    assert shown[begin + 2].split() == ["11-21", "05:10:53", "deploy", "v2.0.0", "(canary)", "no"]
    assert "other" not in "\n".join(shown)
    assert "teardown" not in "\n".join(shown)


def test_what_comes_from_outside_steers_no_terminal() -> None:
    view = failing("web1")
    view["policy"]["canary"]["reasons"] = ["\x1b[2Jgone\x07"]
    known = trends()
    known.learn([{"event": "chaos", "host": "web1", "timestamp": stamp(NOW), "reason": "\x1b]0;title\x07[bold]x"}])
    text = drawn(look(view, known=known), 80, 30)
    assert "\x1b" not in text
    assert "[bold]x" in text


def test_text_for_a_pipe_has_every_sentence_in_one_line() -> None:
    view = failing("web1")
    view["policy"]["canary"]["reasons"] = ["x" * 150, "y " * 80]
    text = dashboard.text(look(view), symbols=True)
    assert any("x" * 150 in line for line in text.splitlines())
    assert any("y " * 79 in line for line in text.splitlines())
    assert "\x1b" not in text
    assert dashboard.text(look(view), symbols=False).isascii()


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (119, "119 s"), (121, "2 min"), (7300, "2 h"), (200000, "2 d"), (None, "-")]
)
def test_ages_are_short(seconds: float | None, words: str) -> None:
    assert dashboard.age(seconds) == words


def test_a_frame_becomes_a_picture() -> None:
    picture = svg(drawn(look(failing("web2")), 100, 20, color=True), "status")
    assert picture.startswith("<svg")
    assert "policy&#160;canary&#160;denied" in picture
