"""The audit report: says what the history says, and nothing in a record can break it."""

from __future__ import annotations

import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from swiftdeploy import history, report
from swiftdeploy.report import gather, markdown, words
from swiftdeploy.report.document import METRIC_ROWS
from swiftdeploy.untrusted import UNSAFE_ON_A_LINE

RENDERER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
HEADINGS = [
    "Audit report",
    "Summary",
    "Delivery figures",
    "Metrics over time",
    "Timeline",
    "Mode changes",
    "Chaos injections",
    "Policy violations",
    "Policy unavailable, overrides, broken locks",
    "Interrupted runs",
    "Decisions",
    "Releases per host",
    "Lines set aside",
]
START = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)


def at(**delta: float) -> str:
    return (START + timedelta(**delta)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def build(folder: Path, *events: dict[str, Any]) -> str:
    """The report of these events."""
    path = folder / "history.jsonl"
    for number, given_event in enumerate(events):
        event = {
            "host": "web1",
            "service": "app",
            "actor": "ada@control",
            "timestamp": at(minutes=number),
            "run_id": f"run-{number}",
            **given_event,
        }
        history.append(path, event)
    text, outcome = report.build(path)
    assert outcome.ok
    return text


def cells(line: Token) -> str:
    """What a reader sees in a cell; fails on anything that is not plain text."""
    for child in line.children or []:
        assert child.type in ("text", "text_special"), child
    return "".join(child.content for child in line.children or [])


def tables(text: str) -> dict[str, list[list[str]]]:
    """Rows by heading, without header rows; a second table under a heading is added to the first."""
    found: dict[str, list[list[str]]] = {}
    heading, body = "", False
    tokens = RENDERER.parse(text)
    for index, token in enumerate(tokens):
        if token.type == "heading_open":
            heading = tokens[index + 1].content
            found[heading] = []
        elif token.type in ("tbody_open", "tbody_close"):
            body = token.type == "tbody_open"
        elif token.type == "tr_open" and body:
            found[heading].append([])
        elif token.type == "td_open":
            found[heading][-1].append(cells(tokens[index + 1]))
    return found


def denied(*reasons: str, domain: str = "canary", **more: Any) -> dict[str, Any]:
    answer = {
        "outcome": "denied",
        "reasons": list(reasons),
        "checked": {"status": "measured", "p99_latency_ms": 620.0, "baseline_requests": None},
        "thresholds": {"p99_latency_ms": {"max": 500}, "error_rate": {"max": 0.01}, "source": "default"},
        "decision_id": "d-1",
    }
    return {"policy": {domain: answer | more}}


ALLOWED = {"policy": {"canary": {"outcome": "allowed", "reasons": [], "checked": {"p99_latency_ms": 20.5}}}}
MEASURED = {
    "status": "measured",
    "first_sample": "kept",
    "window_seconds": 10.18,
    "requests": 80,
    "proxy_requests": 80,
    "proxy_probes": 20,
    "probe_share": 0.25,
}


# --------------------------------------------------------------------------------------------- escaping


@given(st.text())
@settings(max_examples=300, deadline=None)
def test_any_text_is_one_cell_that_shows_just_that_text(text: str) -> None:
    page = "\n".join(markdown.table(["a", "b", "c"], [["1", markdown.md(text), "3"]]))
    ((first, shown, last),) = tables(f"# t\n\n{page}\n")["t"]
    assert (first, last) == ("1", "3")
    expected = UNSAFE_ON_A_LINE.sub(" ", text).strip()
    if len(expected) > words.CELL:
        expected = expected[: words.CELL - 1] + "…"
    assert shown.strip() == (expected.strip() or "–")  # noqa: RUF001


@pytest.mark.parametrize(
    "text",
    [
        "a | b",
        "a \\| b \\",
        "<script>alert(1)</script>",
        "![x](https://evil.example/x.png)",
        "[x](javascript:alert(1))",
        "`code`",
        "**bold** _it_ __x__ ~~gone~~",
        "&lt;b&gt; &#60;",
        "line\n## Heading\n| x |",
        "https://evil.example www.evil.example",
        "$x$",
    ],
)
def test_markup_from_outside_is_shown_not_obeyed(tmp_path: Path, text: str) -> None:
    page = build(
        tmp_path,
        {"event": "deploy", "version": text, "host": text, "reason": text, "actor": text, "release": text},
        {"event": "promote", "mode": "canary", "version": text, "host": text, "reason": text},
        {"event": "promote_blocked", "host": text, **denied(text, domain=text, decision_id=text)},
        {"event": "chaos", "chaos": text, "extra": {text: text}},
        {"event": "override", "reason": text},
        {"event": "status_scrape", "host": text, "mode": text, "chaos": text},
    )
    shown = " ".join(text.split())
    found = tables(page)
    assert list(found) == HEADINGS
    timeline, override = found["Timeline"][0], found["Policy unavailable, overrides, broken locks"][0]
    assert [" ".join(timeline[place].split()) for place in (2, 4, 6, 7)] == [shown] * 4
    assert timeline[8:] == ["–", "1"]  # noqa: RUF001
    assert (override[1], override[5].split()) == ("override", text.split())
    assert found["Decisions"][0][5].split() == text.split()
    assert found["Chaos injections"][0][2].split() == text.split()
    assert "<script" not in page
    assert "https://" not in page
    assert "www." not in page


def test_names_of_events_can_be_searched_for_in_the_source(tmp_path: Path) -> None:
    assert "| promote_blocked |" in build(tmp_path, {"event": "promote_blocked", **denied("too slow")})


def test_text_that_turns_its_direction_is_straightened() -> None:
    assert markdown.md("a\u202eb\u2066c\x1b[31m") == "a b c \\[31m"


# --------------------------------------------------------------------------------------------- sections


def walk() -> list[dict[str, Any]]:
    return [
        {"event": "deploy", "version": "1.0.0", "mode": "stable", "release": "r1", "duration_s": 4.12, **ALLOWED},
        {"event": "promote", "version": "1.0.0", "mode": "canary", "release": "r2", **ALLOWED},
        {"event": "chaos", "chaos": "error", "rate": 0.5, "reason": "half of them"},
        {"event": "status_scrape", "chaos": "error", "error_rate": 0.5, **denied("error rate is 50 %")},
        {
            "event": "promote_blocked",
            "mode": "stable",
            "evidence": MEASURED,
            **denied("P99 latency is 620 ms", "error rate is 50 %"),
        },
        {"event": "chaos", "chaos": "none"},
        {"event": "promote", "version": "1.0.0", "mode": "stable", "release": "r3", **ALLOWED},
    ]


def test_the_walk_shows_in_every_section(tmp_path: Path) -> None:
    found = tables(build(tmp_path, *walk()))
    assert [row[1] for row in found["Timeline"]] == [str(event["event"]) for event in walk()]
    assert found["Timeline"][0][0] == "2026-11-02 09:00:00"
    assert found["Timeline"][0][8] == "4.1 s"
    assert [row[2:5] for row in found["Mode changes"]] == [
        ["stable", "canary", "promote"],
        ["canary", "stable", "promote"],
    ]
    assert [row[2:5] for row in found["Chaos injections"]] == [
        ["error", "half of them", "rate = 0.5"],
        ["none", "–", "–"],  # noqa: RUF001
    ]
    assert [(row[1], row[5]) for row in found["Policy violations"]] == [
        ("status_scrape", "error rate is 50 %"),
        ("promote_blocked", "P99 latency is 620 ms; error rate is 50 %"),
    ]
    assert [row[1] for row in found["Decisions"]] == ["deploy", "promote", "promote_blocked", "promote"]
    assert found["Decisions"][2][4:] == [
        "denied",
        "P99 latency is 620 ms; error rate is 50 %",
        # Each figure beside its limit; those that no limit holds come after, those that were not measured not at all.
        "p99_latency_ms = 620 (max 500); error_rate = not measured (max 0.01); status = measured",
        "d-1",
        "80 requests in 10.2 s up to now, 20 of 80 at the proxy were probes (25 %)",
        "default",
    ]
    # Of a domain that judges no requests, or a record without them, nothing is told.
    assert found["Decisions"][1][8] == "–"  # noqa: RUF001
    assert [row[2] for row in found["Releases per host"]] == ["r1", "r2", "r3"]
    assert ["promote", "2"] in found["Summary"]
    assert ["Runs", "6"] in found["Summary"]
    assert ["Readings of the status", "1"] in found["Summary"]
    assert ["Chain", "whole"] in found["Summary"]


def test_an_empty_history_makes_a_report(tmp_path: Path) -> None:
    (tmp_path / "history.jsonl").touch()
    text, outcome = report.build(tmp_path / "history.jsonl")
    assert outcome.ok
    assert ["Records", "0"] in tables(text)["Summary"]
    assert list(tables(text)) == HEADINGS


def test_no_history_is_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        report.build(tmp_path / "history.jsonl")


def test_readings_that_say_the_same_are_one_row_until_something_happens(tmp_path: Path) -> None:
    scrape = {"event": "status_scrape", "mode": "stable", "chaos": "none"}
    found = tables(
        build(
            tmp_path,
            scrape,
            scrape,
            {**scrape, "host": "web2"},
            scrape,
            {"event": "chaos", "chaos": "slow"},
            scrape,
            {**scrape, "chaos": "slow"},
        )
    )["Timeline"]
    assert [(row[1], row[2], row[-1]) for row in found] == [
        ("status_scrape", "web1", "3"),
        ("status_scrape", "web2", "1"),
        ("chaos", "web1", "1"),
        ("status_scrape", "web1", "1"),
        ("status_scrape", "web1", "1"),
    ]
    assert found[0][0] == "2026-11-02 09:00:00 … 2026-11-02 09:03:00"


def test_a_policy_not_met_for_long_is_one_violation(tmp_path: Path) -> None:
    bad = [{"event": "status_scrape", **denied(f"P99 latency is {600 + number} ms")} for number in range(4)]
    good = {"event": "status_scrape", **ALLOWED}
    rows = tables(build(tmp_path, *bad, good, bad[0]))["Policy violations"]
    assert [(row[5], row[-1]) for row in rows] == [("P99 latency is 600 ms", "4"), ("P99 latency is 600 ms", "1")]


def test_a_blocked_change_without_a_policy_is_a_violation_with_its_reason(tmp_path: Path) -> None:
    rows = tables(build(tmp_path, {"event": "deploy_blocked", "reason": "freeze until Monday"}))["Policy violations"]
    assert rows[0][5] == "freeze until Monday"


def test_overrides_and_silent_policies_have_a_section(tmp_path: Path) -> None:
    silent = {"policy": {"canary": {"outcome": "unavailable", "reasons": ["timed out after 3 s"]}}}
    rows = tables(
        build(
            tmp_path,
            {"event": "override", "reason": "fixing the outage"},
            {"event": "policy_unavailable", **silent},
            {"event": "deploy", **silent},
            {"event": "lock_broken", "reason": "its process is gone"},
        )
    )["Policy unavailable, overrides, broken locks"]
    assert [(row[1], row[3]) for row in rows] == [
        ("override", "–"),  # noqa: RUF001
        ("policy_unavailable", "canary"),
        ("deploy", "canary"),
        ("lock_broken", "–"),  # noqa: RUF001
    ]
    assert "timed out after 3 s" in rows[2][5]


def test_metrics_give_mean_rate_and_worst_figures_of_an_interval(tmp_path: Path) -> None:
    def scrape(second: int, **figures: Any) -> dict[str, Any]:
        return {"event": "status_scrape", "timestamp": at(seconds=second), **figures}

    rows = tables(
        build(
            tmp_path,
            scrape(0, req_per_sec=10.0, error_rate=0.0, p99_latency_ms=40.0, mode="stable"),
            scrape(5, req_per_sec=20.0, error_rate=0.25, p99_latency_ms=620.5, chaos="slow"),
            scrape(10, req_per_sec=None, error_rate=None, p99_latency_ms=None, chaos="none"),
            scrape(70, host="web2"),
        )
    )["Metrics over time"]
    assert rows == [
        ["2026-11-02 09:00:00", "1 min 0 s", "web1", "3", "15.00", "25.00 %", "620.5", "stable", "slow"],
        ["2026-11-02 09:01:00", "1 min 0 s", "web2", "1", "–", "–", "–", "–", "–"],  # noqa: RUF001
    ]


def test_a_broken_chain_is_said_at_the_top_and_the_rest_is_still_reported(tmp_path: Path) -> None:
    build(tmp_path, *walk())
    path = tmp_path / "history.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"rate":0.5', b'"rate":0.1'))
    text, outcome = report.build(path)
    assert (outcome.ok, outcome.first_bad_line) == (False, 3)
    assert "broken at line 3" in text[: text.index("## Summary")]
    assert len(tables(text)["Timeline"]) == len(walk())
    assert report.verdict(outcome, path).startswith("history.jsonl is broken at line 3: hash does not fit")


# --------------------------------------------------------------------------------------------- delivery


def delivery(folder: Path, *events: tuple[str, float]) -> list[str]:
    """Values of the delivery figures; each event with its time in hours."""
    page = build(folder, *({"event": name, "timestamp": at(hours=hours)} for name, hours in events))
    frequency, lead, *rest = [row[1] for row in tables(page)["Delivery figures"]]
    assert lead == "–"  # noqa: RUF001
    return [frequency, *rest]


def test_delivery_figures(tmp_path: Path) -> None:
    figures = delivery(
        tmp_path,
        ("deploy", 0),
        ("deploy_failed", 24),
        ("deploy_failed", 25),
        ("deploy", 26),
        ("promote", 48),
        ("rollback", 49),
        ("deploy_blocked", 50),
        ("promote", 24 * 14),
    )
    # 4 went through in 2 weeks; 2 failed and 1 rolled back of 6; restored after 2 h and after 1 h.
    assert figures == ["2.00 a week", "50.00 %", "1 h 30 min"]


def test_a_rollback_after_a_failed_change_is_one_failure(tmp_path: Path) -> None:
    assert delivery(tmp_path, ("deploy", 0), ("deploy_failed", 1), ("rollback", 3)) == [
        "1.00 a week",
        "50.00 %",
        "2 h 0 min",
    ]


def test_without_changes_there_is_no_rate(tmp_path: Path) -> None:
    assert delivery(tmp_path, ("teardown", 0)) == ["0.00 a week", "–", "–"]  # noqa: RUF001


def test_a_run_that_changed_nothing_is_no_delivery_and_no_release(tmp_path: Path) -> None:
    found = tables(build(tmp_path, {"event": "deploy"}, {"event": "deploy", "changed": False}))
    assert found["Delivery figures"][0][1] == "1.00 a week"
    assert len(found["Releases per host"]) == 1


# ----------------------------------------------------------------------------------- size and stability


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from([*history.FIELDS, "torn", "changed", "extra"])
EVENTS = st.sampled_from(["deploy", "promote", "rollback", "chaos", "status_scrape", "deploy_blocked", "x_failed"])


@given(st.lists(st.tuples(EVENTS, st.dictionaries(KEYS, ANYTHING)), max_size=5))
@settings(max_examples=150, deadline=None)
def test_records_of_any_shape_are_borne(records: list[tuple[str, dict[str, Any]]]) -> None:
    audit = report.Audit()
    for name, record in records:
        audit.add({"timestamp": at(), **record, "event": name})
    text = report.render(audit, history.VerifyResult(True, len(records)), "history.jsonl")
    assert ["Records", str(len(records))] in tables(text)["Summary"]


def status(number: int) -> dict[str, Any]:
    return {
        "event": "status_scrape" if number % 5 else "deploy",
        "timestamp": at(seconds=5 * number),
        "run_id": f"run-{number}",
        "host": f"web{number % 3}",
        "chaos": f"state {number % 2}",
        "req_per_sec": float(number),
        "release": f"r{number}",
        **denied("slow"),
    }


def test_a_long_history_keeps_the_last_rows_says_what_is_left_out_and_needs_no_more_memory() -> None:
    def peak(count: int) -> tuple[int, str]:
        tracemalloc.start()
        audit = report.Audit()
        for number in range(count):
            audit.add(status(number))
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used, report.render(audit, history.VerifyResult(True, count), "history.jsonl")

    short, _text = peak(5_000)
    long, text = peak(10_000)
    assert long < short * 1.3
    found = tables(text)
    assert len(found["Timeline"]) == gather.TIMELINE_ROWS
    assert found["Timeline"][-1][0] == words.time_of(at(seconds=5 * 9_999))
    assert "The last 1000 of " in text
    assert ["Runs", "2000"] in found["Summary"]
    assert ["Readings of the status", "8000"] in found["Summary"]
    assert len(found["Metrics over time"]) <= METRIC_ROWS
    # Those of a deploy's record are readings too.
    assert sum(int(row[3]) for row in found["Metrics over time"]) == 10_000
    assert len(found["Releases per host"]) == 3 * gather.RELEASES_PER_HOST


def test_the_same_history_gives_the_same_bytes(tmp_path: Path) -> None:
    first = build(tmp_path, *walk())
    assert report.build(tmp_path / "history.jsonl")[0] == first


def test_the_report_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "audit_report.md"
    assert report.current(target) is None
    report.write(target, "first\n")
    report.write(target, "second\n")
    assert report.current(target) == "second\n"
    assert list(tmp_path.iterdir()) == [target]
    with pytest.raises(history.HistoryError, match="cannot write the report"):
        report.write(tmp_path / "none" / "audit_report.md", "x")
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(history.HistoryError, match="cannot write the report"):
        report.write(folder, "x")
    assert sorted(tmp_path.iterdir()) == [target, folder]


# ------------------------------------------------------------------------------------- interrupted runs


def test_a_run_that_never_ended_is_told_and_is_a_failed_change(tmp_path: Path) -> None:
    text = build(
        tmp_path,
        {"event": "deploy", "timestamp": at(hours=0)},
        {
            "event": "deploy_interrupted",
            "timestamp": at(hours=3.9),
            "reason": "interrupted while: Wait",
            "since": at(minutes=58),
            "last_sign": at(hours=1),
        },
        {"event": "promote_interrupted", "timestamp": at(hours=3.95)},
        {"event": "teardown_interrupted", "timestamp": at(hours=3.95), "host": "web2"},
        {"event": "promote", "timestamp": at(hours=4)},
    )
    found = tables(text)
    assert [(row[1], row[2], *row[5:8]) for row in found["Interrupted runs"]] == [
        ("deploy_interrupted", "web1", "2026-11-02 09:58:00", "2026-11-02 10:00:00", "interrupted while: Wait"),
        ("promote_interrupted", "web1", "–", "–", "–"),  # noqa: RUF001
        ("teardown_interrupted", "web2", "–", "–", "–"),  # noqa: RUF001
    ]
    # 2 of 4 changes. It was as it should be again 3 h after the last sign of the first, whenever that was recorded.
    assert [row[1] for row in found["Delivery figures"]] == ["2.00 a week", "–", "50.00 %", "3 h 0 min"]  # noqa: RUF001
    assert "0 failed + 2 interrupted + 0 rolled back" in found["Delivery figures"][2][2]


def test_two_services_of_a_host_are_told_apart(tmp_path: Path) -> None:
    """Neither the modes, the releases nor the figures of one are taken for those of the other."""
    both = [
        {"event": event, "service": service, "mode": mode, "release": f"{service}-{number}", "req_per_sec": rate}
        for number, event in enumerate(("deploy", "deploy", "promote"))
        for service, mode, rate in (("shop", "stable", 1.0), ("pay", "canary", 90.0))
    ]
    found = tables(build(tmp_path, *({**record, "timestamp": at(hours=n)} for n, record in enumerate(both))))
    assert not found.get("Mode changes")
    releases = [(row[0], row[2]) for row in found["Releases per host"]]
    assert releases == [(f"web1 ({name})", f"{name}-{n}") for name in ("pay", "shop") for n in range(3)]
    assert ["Hosts", "1"] in found["Summary"]


def test_lines_set_aside_are_named(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    history.append(path, {"event": "deploy", "host": "web1"})
    with path.open("ab") as end:
        end.write(b'{"seq":2,"ti')
    history.append(path, {"event": "promote", "host": "web1"})
    ((_time, name, before),) = tables(report.build(path)[0])["Lines set aside"]
    assert (tmp_path / name).read_bytes() == b'{"seq":2,"ti'
    assert before == "2"


# -------------------------------------------------------------------------------------------- lead time


def commit(name: str, hours: float, dirty: object = False) -> dict[str, Any]:
    return {"commit": {"id": name, "time": at(hours=hours), "dirty": dirty}}


def lead(folder: Path, *events: dict[str, Any]) -> str:
    return tables(build(folder, *events))["Delivery figures"][1][1]


def test_lead_time_is_the_median_from_commits_to_the_first_change_that_brings_them_to_a_host(tmp_path: Path) -> None:
    events = [
        {"event": "deploy", "timestamp": at(hours=2), **commit("a", 0)},
        {"event": "deploy", "timestamp": at(hours=4), "host": "web2", **commit("a", 0)},
        # Seen on this host before, or never known, or not the commit alone.
        {"event": "promote", "timestamp": at(hours=90), **commit("a", 0)},
        {"event": "deploy", "timestamp": at(hours=91), "commit": None},
        {"event": "deploy", "timestamp": at(hours=92), **commit("b", 0, dirty=True)},
        {"event": "deploy_failed", "timestamp": at(hours=93), **commit("c", 0)},
        {"event": "deploy", "timestamp": at(hours=94), "changed": False, **commit("c", 0)},
        # What was tried in vain before is new here all the same.
        {"event": "promote", "timestamp": at(hours=100), **commit("c", 94)},
    ]
    assert lead(tmp_path, *events) == "4 h 0 min"


@pytest.mark.parametrize("broken", ["main", {}, {"id": 5, "time": at(), "dirty": False}, {"id": "a", "dirty": False}])
def test_a_commit_that_says_too_little_is_no_lead_time(tmp_path: Path, broken: object) -> None:
    assert lead(tmp_path, {"event": "deploy", "timestamp": at(hours=2), "commit": broken}) == "–"  # noqa: RUF001


def test_a_commit_from_the_future_is_no_lead_time(tmp_path: Path) -> None:
    assert lead(tmp_path, {"event": "deploy", "timestamp": at(hours=2), **commit("a", 3)}) == "–"  # noqa: RUF001


# ---------------------------------------------------------------------------------------------- filters

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("given_words", "since", "until"),
    [
        (("2026-11-02", ""), "2026-11-02 00:00:00", None),
        (("", "2026-11-02"), None, "2026-11-02 23:59:59"),
        (("2026-11-02", "2026-11-02"), "2026-11-02 00:00:00", "2026-11-02 23:59:59"),
        (("2026-11-02T09:30", ""), "2026-11-02 09:30:00", None),
        (("2026-11-02 09:30:10", ""), "2026-11-02 09:30:10", None),
        (("2026-11-02T09:30+02:00", "2026-11-02T09:30Z"), "2026-11-02 07:30:00", "2026-11-02 09:30:00"),
        (("7d", "24h"), "2026-11-13 12:00:00", "2026-11-19 12:00:00"),
        (("2w", "30m"), "2026-11-06 12:00:00", "2026-11-20 11:30:00"),
    ],
)
def test_times_of_a_filter(given_words: tuple[str, str], since: str | None, until: str | None) -> None:
    choice = report.choose(*given_words, now=NOW)
    shown = [None if moment is None else words.clock(moment) for moment in (choice.since, choice.until)]
    assert shown == [since, until]


@pytest.mark.parametrize(
    "wrong",
    [
        "yesterday",
        "7",
        "d",
        "-7d",
        "2026-13-01",
        "2026-02-30",
        "2026-11-02T25:00",
        "999999w",
        "\u0667d",
        "9\n",
        "20261102",
    ],
)
@pytest.mark.parametrize("name", ["since", "until"])
def test_a_filter_that_is_no_time_is_one_clear_sentence(name: str, wrong: str) -> None:
    with pytest.raises(report.ChoiceError) as caught:
        report.choose(**{name: wrong}, now=NOW)
    assert str(caught.value).startswith(f"{name} is {wrong!r}; give a date (2026-11-20)")
    assert "\n" not in str(caught.value)


def test_a_filter_that_ends_before_it_begins_is_told() -> None:
    with pytest.raises(report.ChoiceError, match="since is 2026-11-19 12:00:00, which is after until"):
        report.choose("24h", "7d", now=NOW)


def test_a_host_that_no_host_can_be_called_is_told() -> None:
    with pytest.raises(report.ChoiceError, match="host is"):
        report.choose(host="web1\n# Title")


def filtered(folder: Path, since: str = "", until: str = "", host: str = "") -> tuple[str, dict[str, list[list[str]]]]:
    text, _outcome = report.build(folder / "history.jsonl", report.choose(since, until, host, now=NOW))
    return text, tables(text)


def two_hosts() -> list[dict[str, Any]]:
    return [
        {"event": "deploy", "mode": "stable", "release": "r1", **commit("a", -1)},
        {"event": "deploy", "mode": "stable", "host": "web2", "release": "r1"},
        {"event": "promote", "mode": "canary", "release": "r2", **ALLOWED},
        {"event": "deploy_failed", "timestamp": at(minutes=3)},
        {"event": "promote", "timestamp": at(minutes=33), "mode": "stable", "release": "r3", **commit("a", -1)},
        {"event": "status_scrape", "timestamp": at(minutes=34), "host": "web2", "req_per_sec": 3.0},
        {"event": "promote_blocked", "timestamp": at(minutes=35), "host": "db1", **denied("slow")},
    ]


def test_a_filter_shows_some_and_says_so(tmp_path: Path) -> None:
    build(tmp_path, *two_hosts())
    text, found = filtered(tmp_path, host="web*", since="2026-11-02T09:01")
    assert "Filter: since 2026-11-02 09:01:00, host web\\*: shows 5 of 7 records." in text
    assert {row[2] for row in found["Timeline"]} == {"web1", "web2"}
    assert [row[1] for row in found["Timeline"]] == [
        "deploy", "promote", "deploy_failed", "promote", "status_scrape"
    ]  # fmt: skip
    assert ["Records", "7"] in found["Summary"]
    assert ["Hosts", "2"] in found["Summary"]
    assert found["Decisions"][0][1] == "promote"
    assert [row[2] for row in found["Releases per host"]] == ["r2", "r3", "r1"]
    assert "Filter" not in report.build(tmp_path / "history.jsonl")[0]


def test_what_happened_before_a_filter_is_known_all_the_same(tmp_path: Path) -> None:
    build(tmp_path, *two_hosts())
    _text, found = filtered(tmp_path, since="2026-11-02T09:30", host="web1")
    # The mode that it came from, since when it was broken, and that the commit was no new one.
    assert [row[1:5] for row in found["Mode changes"]] == [["web1", "canary", "stable", "promote"]]
    assert [row[1] for row in found["Delivery figures"]] == ["1.00 a week", "–", "0.00 %", "30 min 0 s"]  # noqa: RUF001


def test_a_change_that_was_taken_back_after_a_filter_ends_counts_as_failed(tmp_path: Path) -> None:
    build(
        tmp_path,
        {"event": "deploy", "timestamp": at(hours=0)},
        {"event": "promote", "timestamp": at(hours=1)},
        {"event": "rollback", "timestamp": at(hours=30)},
    )
    early = filtered(tmp_path, until="2026-11-02")[1]["Delivery figures"]
    late = filtered(tmp_path, since="2026-11-03")[1]["Delivery figures"]
    assert (early[2][1], early[3][1]) == ("50.00 %", "–")  # noqa: RUF001
    assert (late[2][1], late[3][1]) == ("–", "1 d 5 h")  # noqa: RUF001


def test_the_chain_is_checked_over_every_line_whatever_is_shown(tmp_path: Path) -> None:
    build(tmp_path, *two_hosts())
    path = tmp_path / "history.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"release":"r1"', b'"release":"r9"', 1))
    text, outcome = report.build(path, report.choose(host="db1"))
    assert (outcome.ok, outcome.first_bad_line, outcome.records) == (False, 1, 7)
    assert "broken at line 1" in text[: text.index("## Summary")]


def test_a_host_that_is_not_in_the_history_is_told_with_those_that_are(tmp_path: Path) -> None:
    build(tmp_path, *two_hosts())
    text, found = filtered(tmp_path, host="wbe1")
    assert "shows 0 of 7 records; the history has the hosts db1, web1, web2." in text
    assert ["Period", "–"] in found["Summary"]  # noqa: RUF001


def test_a_record_without_a_time_is_shown_only_when_no_time_is_asked_for(tmp_path: Path) -> None:
    build(tmp_path, {"event": "deploy", "timestamp": "soon"}, {"event": "deploy", "timestamp": at()})
    assert len(filtered(tmp_path)[1]["Timeline"]) == 2
    assert len(filtered(tmp_path, host="web1")[1]["Timeline"]) == 2
    assert len(filtered(tmp_path, since="2026-01-01")[1]["Timeline"]) == 1


def test_readings_are_merged_into_rounder_and_rounder_intervals(tmp_path: Path) -> None:
    audit = report.Audit()
    for number in range(3000):
        audit.add({"event": "status_scrape", "host": "web1", "timestamp": at(minutes=number), "req_per_sec": 1.0})
    rows = tables(report.render(audit, history.VerifyResult(True, 3000), "h"))["Metrics over time"]
    assert {row[1] for row in rows} == {"1 h 0 min"}
    assert sum(int(row[3]) for row in rows) == 3000
    # The chart is finer than the table.
    assert audit.series["web1"].width == 15 * 60


def test_figures_of_a_gate_are_readings_too(tmp_path: Path) -> None:
    rows = tables(
        build(
            tmp_path,
            {"event": "promote", "req_per_sec": 8.0, "error_rate": 0.0, "p99_latency_ms": 30.0},
            {"event": "promote_blocked", "timestamp": at(hours=2), "p99_latency_ms": 700.0, **denied("slow")},
            {"event": "deploy"},
        )
    )["Metrics over time"]
    assert [(row[3], row[4], row[6]) for row in rows] == [("1", "8.00", "30.0"), ("1", "–", "700.0")]  # noqa: RUF001
