"""Sparklines, and the bounded read of the history's end that fills them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from swiftdeploy import history, trend

# At the end of a bin of ten seconds.
NOW = 1_800_000_009.0


def point(age: float, rate: float | None) -> trend.Point:
    return trend.Point(NOW - age, req_per_sec=rate)


def scrape(host: str, second: int, **figures: Any) -> dict[str, Any]:
    return {
        "event": "status_scrape",
        "host": host,
        "service": "app",
        "timestamp": f"2026-11-21T05:00:{second:02}.000Z",
        **figures,
    }


def test_the_highest_value_is_a_full_bar_and_zero_the_lowest() -> None:
    assert trend.sparkline([0.0, 50.0, 100.0, None]) == ("▁▅█ ", 100.0)
    assert trend.sparkline([0.0, 0.0]) == ("▁▁", 0.0)
    assert trend.sparkline([None, None]) == ("  ", None)


def test_a_bin_shows_its_worst_and_a_gap_stays_a_gap() -> None:
    points = [point(250, 1.0), point(95, 5.0), point(94, 9.0), point(1, 2.0)]
    values = trend.bins(points, "req_per_sec", NOW, 30)
    assert len(values) == 30
    assert values[-1] == 2.0
    assert 9.0 in values and 5.0 not in values
    # The last figure stands for two bins, no longer.
    assert sum(value == 9.0 for value in values) == 3
    assert values.count(None) == 30 - 3 - 3 - 1


def test_a_refresh_without_a_figure_is_a_gap() -> None:
    values = trend.bins([point(25, 3.0), point(14, None), point(1, 3.0)], "req_per_sec", NOW, 30)
    assert [value for value in values if value is not None] == [3.0, 3.0]


def test_what_is_older_than_the_span_is_not_shown() -> None:
    assert set(trend.bins([point(1000, 3.0)], "req_per_sec", NOW, 10)) == {None}


def test_trends_come_from_the_history_and_go_on_without_doubling(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    history.append(path, {"event": "deploy", "host": "web1", "version": "1.0.0"})
    for second in (1, 2, 3):
        history.append(path, scrape("web1", second, req_per_sec=second, canary={"req_per_sec": 7.0}))
    known, tail = trend.Trends(), trend.Tail(path)
    history.append(path, {**scrape("web1", 4, req_per_sec=99), "service": "neighbour"})
    known.learn(tail.read())
    assert [one.req_per_sec for one in known.of("web1", "app")] == [1.0, 2.0, 3.0]
    assert [one.req_per_sec for one in known.of("web1", "app", canary=True)] == [7.0, 7.0, 7.0]
    assert [record["event"] for record in known.events] == ["deploy"]
    # The run sees its own refresh first, and finds it in the history afterwards.
    known.learn([scrape("web1", 4, req_per_sec=4)])
    history.append(path, scrape("web1", 4, req_per_sec=4))
    history.append(path, {"event": "chaos", "host": "web1", "reason": "chaos=error"})
    known.learn(tail.read())
    assert [one.req_per_sec for one in known.of("web1", "app")] == [1.0, 2.0, 3.0, 4.0]
    assert [record["event"] for record in known.events] == ["deploy", "chaos"]
    assert tail.read() == []


def test_only_the_end_of_a_long_history_is_read(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    for number in range(50):
        history.append(path, {"event": "deploy", "host": "web1", "reason": f"no {number}"})
    found = trend.Tail(path, most=2000).read()
    assert 0 < len(found) < 8
    assert found[-1]["reason"] == "no 49"


def test_a_torn_missing_foreign_or_new_history_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    tail = trend.Tail(path)
    assert tail.read() == []
    history.append(path, {"event": "deploy", "host": "web1"})
    whole = path.read_bytes()
    path.write_bytes(whole + b"not a record\n" + whole[:40])
    assert len(tail.read()) == 1
    # The line is finished by now.
    path.write_bytes(whole + b"not a record\n" + whole)
    assert len(tail.read()) == 1
    # The file was moved away and begun anew.
    path.rename(tmp_path / "old")
    history.append(path, {"event": "teardown", "host": "web1"})
    assert [record["event"] for record in tail.read()] == ["teardown"]


def test_since_when_a_host_is_silent_is_known_across_runs() -> None:
    known = trend.Trends()
    known.learn(
        [scrape("web1", 1, answered=False), scrape("web1", 2, answered=True), scrape("web2", 1, answered=False)]
    )
    known.learn([scrape("web1", 3, answered=False), scrape("web1", 4, answered=False)])
    assert known.silent_since("web1", "app") == "2026-11-21T05:00:03.000Z"
    assert known.silent_since("web2", "app") == "2026-11-21T05:00:01.000Z"
    known.learn([scrape("web1", 5, answered=True)])
    assert known.silent_since("web1", "app") is None
