"""The HTML report: says what the Markdown says, and nothing in a record can break it or make it ask the network."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support import example_history
from swiftdeploy import history, report, untrusted
from swiftdeploy.report import charts, document, html, markdown
from swiftdeploy.report.charts import Drawn
from swiftdeploy.report.series import CHARTS, Series, Track

START = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)
# What the templates use, and nothing that could load, run or send anything.
TAGS = {
    *("html", "head", "meta", "title", "style", "body", "a", "header", "p", "h1", "div", "strong", "span", "dl", "dt"),
    *("dd", "nav", "ul", "li", "main", "section", "h2", "h3", "figure", "figcaption", "table", "caption", "thead"),
    *("tbody", "tr", "th", "td", "code", "b", "i", "svg", "g", "path", "line", "text"),
}
ATTRIBUTES_THAT_LOAD = {"src", "srcset", "xlink:href", "action", "background", "poster", "data", "formaction", "style"}


def at(**delta: float) -> str:
    return (START + timedelta(**delta)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Page(HTMLParser):
    """What a page holds: tags, attributes, text, and tables by heading."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.ids: list[str] = []
        self.headings: list[tuple[str, str]] = []
        self.rows: dict[str, list[list[str]]] = {}
        self._open: list[str] = []
        self._last = ""
        self._cell: list[str] | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag in ("h1", "h2", "h3"):
            self.headings.append((tag, ""))
        if tag == "tbody":
            self.rows.setdefault(self._last, [])
            self._open.append(tag)
        if self._open and tag == "tr":
            self.rows[self._last].append([])
        if self._open and tag in ("td", "th"):
            self._cell = []

    def handle_endtag(self, tag: str) -> None:
        if tag == "tbody":
            self._open.pop()
        if tag in ("td", "th") and self._cell is not None:
            self.rows[self._last][-1].append(" ".join("".join(self._cell).split()))
            self._cell = None
        if tag in ("h1", "h2", "h3"):
            self._last = self.headings[-1][1]

    def handle_data(self, data: str) -> None:
        if self.headings and self.headings[-1][1] == "" and data.strip():
            self.headings[-1] = (self.headings[-1][0], data.strip())
        if self._cell is not None:
            self._cell.append(data)


def made(folder: Path, *events: dict[str, Any], choice: report.Choice | None = None) -> report.Report:
    path = folder / "history.jsonl"
    for number, event in enumerate(events):
        known = {"host": "web1", "service": "app", "actor": "ada@control", "timestamp": at(minutes=number)}
        history.append(path, {**known, "run_id": f"run-{number}", **event})
    return report.make(path, choice)


@pytest.fixture(scope="module")
def week(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, report.Report]:
    path = tmp_path_factory.mktemp("week") / "history.jsonl"
    example_history.write(path, minutes=60)
    return path, report.make(path)


SCRAPE: dict[str, Any] = {"event": "status_scrape", "req_per_sec": 3.5, "error_rate": 0.002, "p99_latency_ms": 120.0}


# ---------------------------------------------------------------------------------------------- content


def test_both_files_have_the_same_sections_rows_and_cells(week: tuple[Path, report.Report]) -> None:
    page = Page(week[1].html)
    audit, outcome = report.collect(week[0])
    said = document.make(audit, outcome, week[0].name)
    assert [text for level, text in page.headings if level == "h2"] == [section.title for section in said.sections]
    assert [line[3:] for line in week[1].markdown.splitlines() if line.startswith("## ")] == [
        section.title for section in said.sections
    ]
    for section in said.sections:
        grids = [part for part in section.parts if isinstance(part, document.Grid)]
        if not grids:
            continue
        title = section.title if section.title in page.rows else "web2"
        rows = [row for grid in grids for row in grid.rows]
        assert len(page.rows[title]) == len(rows), section.title
        for shown, row in zip(page.rows[title], rows, strict=True):
            for there, cell in zip(shown, row, strict=True):
                if isinstance(cell, str):
                    # A state has its symbol before the word.
                    word = there.removeprefix("✓").removeprefix("✗").removeprefix("!")
                    # The second time of a row stands on a line of its own.
                    assert "".join(word.split()) == ("".join(cell.split()) or "–")  # noqa: RUF001
                else:
                    assert all(one.name in there and one.limit in there for one in cell)


def test_every_kind_of_thing_in_the_week_is_told(week: tuple[Path, report.Report]) -> None:
    rows = Page(week[1].html).rows
    assert {row[1] for row in rows["Timeline"]} >= {
        "✓deploy", "✓promote", "!rollback", "!chaos", "!override", "✗promote_blocked", "✗deploy_failed",
        "✗deploy_interrupted", "!lock_broken", "!policy_unavailable", "status_scrape",
    }  # fmt: skip
    assert [row[2:4] for row in rows["Interrupted runs"]] == [["web1", "shop"]]
    decision = next(row for row in rows["Decisions"] if row[1] == "✗promote_blocked")
    assert "p99_latency_ms 812 max 500" in decision[6]
    assert re.fullmatch(r"[0-9a-f-]{36}", decision[7])
    assert "ansible-playbook audit.yml -e decision=ID" in week[1].html
    assert "ansible-playbook audit.yml -e decision=ID" in week[1].markdown


def test_the_top_says_whether_the_history_is_whole(tmp_path: Path) -> None:
    assert "The history is whole, every line checked: 1 record." in made(tmp_path, SCRAPE).html
    path = tmp_path / "history.jsonl"
    path.write_bytes(path.read_bytes().replace(b"3.5", b"9.5"))
    text = report.make(path).html
    header = text[: text.index("<nav")]
    assert "The history is broken at line 1: hash does not fit the line" in header
    assert 'role="alert"' in header
    assert "whole" not in header


def test_what_the_check_could_not_know_stands_at_the_top() -> None:
    said = document.make(report.Audit(), history.VerifyResult(True, 0), "h", ["it starts at <line> 5"])
    assert "it starts at &lt;line&gt; 5." in html.render(said, Drawn([]))
    assert "Note: it starts at &lt;line&gt; 5." in markdown.render(said)


def test_the_filter_stands_at_the_top(tmp_path: Path) -> None:
    found = made(tmp_path, SCRAPE, {"event": "deploy", "host": "web2"}, choice=report.choose(host="web2"))
    assert "host web2: shows 1 of 2 records" in found.html[: found.html.index("<nav")]
    assert found.shown == "host web2: shows 1 of 2 records"


def test_the_same_history_gives_the_same_bytes(week: tuple[Path, report.Report]) -> None:
    assert report.make(week[0]) == week[1]


def test_an_empty_history_makes_a_page(tmp_path: Path) -> None:
    (tmp_path / "history.jsonl").touch()
    found = report.make(tmp_path / "history.jsonl")
    assert found.outcome.ok
    assert "<svg" not in found.html
    assert "no reading of the status" in found.html


# ----------------------------------------------------------------------------------------------- safety


def nothing_foreign(text: str) -> Page:
    """The page, which has only the tags that the templates have, and asks for nothing."""
    page = Page(text)
    assert page.tags <= TAGS, page.tags - TAGS
    for tag, name, value in page.attributes:
        assert name not in ATTRIBUTES_THAT_LOAD, (tag, name, value)
        assert not name.startswith("on"), (tag, name, value)
        if name == "href":
            assert value.startswith("#"), value
            assert value[1:] in page.ids
    assert len(page.ids) == len(set(page.ids))
    assert "url(" not in text.lower()
    assert "@import" not in text.lower()
    return page


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "</style><script>alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "' onmouseover='alert(1)",
        "<svg onload=alert(1)>",
        "</td></tr></table><h1>Whole</h1>",
        "{{ 7 * 7 }}{% include 'x' %}",
        "javascript:alert(1)",
        "https://evil.example/x.png",
        "<!-- ", "]]>", "&lt;b&gt; &#60;",
        "a\u202eb\u2066c\x1b[31m",
    ],
)  # fmt: skip
def test_markup_from_outside_is_shown_not_obeyed(tmp_path: Path, text: str) -> None:
    answer = {
        "outcome": text,
        "reasons": [text],
        "checked": {text: text},
        "thresholds": {text: {text: text}, "source": text},
    }
    found = made(
        tmp_path,
        {
            "event": "deploy",
            "version": text,
            "host": text,
            "reason": text,
            "actor": text,
            "release": text,
            "service": text,
        },
        {"event": "promote", "mode": "canary", "version": text, "host": text, "reason": text},
        {"event": "promote_blocked", "host": text, "policy": {text: {**answer, "decision_id": text}, "canary": answer}},
        {"event": "chaos", "chaos": text, "extra": {text: text}, "host": text},
        {"event": "override", "reason": text},
        {"event": "deploy_interrupted", "reason": text, "since": text, "last_sign": text},
        {**SCRAPE, "host": text, "mode": text, "chaos": text, "policy": {"canary": {**answer, "outcome": "denied"}}},
        {"event": "deploy", "commit": {"id": text, "time": text, "dirty": text}, "timestamp": text},
    )
    page = nothing_foreign(found.html)
    shown = " ".join(untrusted.clean(text).split())
    assert page.rows["Timeline"][0][2] == shown
    assert page.rows["Timeline"][0][4] == shown
    assert page.rows["Decisions"][0][5] == shown
    assert shown in page.rows["Decisions"][0][6]
    # One heading for each host with a chart, and it is the name of the host, with the service where it has several.
    assert [" ".join(name.split()) for level, name in page.headings if level == "h3"] == [f"{shown} (app)"]


@given(st.lists(st.text(max_size=30), min_size=4, max_size=4))
@settings(max_examples=60, deadline=None)
def test_any_text_is_just_that_text(texts: list[str]) -> None:
    audit = report.Audit()
    host, version, reason, actor = texts
    audit.add(
        {"event": "deploy", "timestamp": at(), "host": host, "version": version, "reason": reason, "actor": actor}
    )
    said = document.make(audit, history.VerifyResult(True, 1), "h")
    ((_time, _event, *shown),) = nothing_foreign(html.render(said, Drawn([]))).rows["Timeline"]
    grid = next(part for part in said.sections[3].parts if isinstance(part, document.Grid))
    expected = [" ".join(str(cell).split()) or "–" for cell in grid.rows[0][2:]]  # noqa: RUF001
    assert shown == expected


def test_a_policy_forbids_what_escaping_should_have_stopped(week: tuple[Path, report.Report]) -> None:
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', week[1].html)
    assert re.fullmatch(
        r"default-src 'none'; style-src 'sha256-[\w+/=]{44}'; base-uri 'none'; form-action 'none'", policy
    )
    nothing_foreign(week[1].html)


def test_headings_are_in_order_and_tables_have_captions_and_scopes(week: tuple[Path, report.Report]) -> None:
    levels = [int(level[1]) for level, _text in Page(week[1].html).headings]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= before + 1 for before, later in pairwise(levels))
    tables = re.findall(r"<table>.*?</table>", week[1].html, re.DOTALL)
    assert tables
    for one in tables:
        assert one.startswith("<table>\n<caption")
        assert not re.search(r"<th(?! scope=)[ >]", one)


# ----------------------------------------------------------------------------------------------- charts


def drawing(folder: Path, *events: dict[str, Any]) -> str:
    audit_path = folder / "history.jsonl"
    made(folder, *events)
    audit, _outcome = report.collect(audit_path)
    (chart,) = charts.draw(audit).charts
    ElementTree.fromstring(chart.svg)
    return chart.svg + chart.told


def words_in(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


JUDGED = {
    "outcome": "allowed",
    "checked": {},
    "thresholds": {"error_rate": {"max": 0.01}, "p99_latency_ms": {"max": 500}, "source": "default"},
}


def test_a_chart_shows_the_figures_the_limits_and_what_happened(tmp_path: Path) -> None:
    svg = drawing(
        tmp_path,
        {"event": "deploy"},
        {**SCRAPE, "policy": {"canary": JUDGED}},
        {"event": "promote"},
        {"event": "chaos", "chaos": "error"},
        {**SCRAPE, "error_rate": 0.31, "p99_latency_ms": 812.0},
        {"event": "chaos", "chaos": "none"},
        {"event": "promote_blocked"},
        {"event": "rollback"},
        {"event": "deploy_failed"},
        {"event": "promote_interrupted"},
        SCRAPE,
    )
    words = words_in(svg)
    lanes = ["deploy", "promote", "rollback", "chaos", "denied", "failed", "interrupted"]
    assert [word for word in words if word in charts.KINDS] == lanes
    assert {"requests/s", "errors %", "P99 ms", "limit 1 %", "limit 500 ms"} <= set(words)
    assert "3.50 to 3.50 requests/s, error rate up to 31.00 % (limit 1.00 %), P99 up to 812.0 ms (limit 500 ms)" in svg
    assert "1 deploy, 1 promote, 1 rollback, 1 chaos, 1 denied, 1 failed, 1 interrupted" in svg
    # The fault is a band in each of the three panels.
    assert svg.count('fill="var(--warn)" opacity="0.14"') == 3


def test_colours_are_those_of_the_page(tmp_path: Path) -> None:
    svg = drawing(tmp_path, SCRAPE, {"event": "deploy"}, {**SCRAPE, "policy": {"canary": JUDGED}})
    colours = set(re.findall(r'(?:fill|stroke)="([^"]*)"', svg)) - {"none"}
    assert colours
    assert all(re.fullmatch(r"var\(--[a-z]+\)", colour) for colour in colours), colours
    style = (Path(html.__file__).parent / "templates" / "report.css").read_text()
    assert all(f"{colour[4:-1]}:" in style for colour in colours)


def test_limits_of_a_single_look_at_a_canary_are_not_the_limits(tmp_path: Path) -> None:
    partial = {**JUDGED, "thresholds": {"p99_latency_ms": {"max": 5000}, "source": "canary_partial.default"}}
    svg = drawing(tmp_path, SCRAPE, {"event": "promote", "policy": {"canary": partial}}, {**SCRAPE})
    assert not [word for word in words_in(svg) if word.startswith("limit")]


def test_limits_that_change_are_a_step(tmp_path: Path) -> None:
    tighter = {**JUDGED, "thresholds": {"p99_latency_ms": {"max": 300}, "source": "default"}}
    made(
        tmp_path,
        {**SCRAPE, "policy": {"canary": JUDGED}},
        {**SCRAPE, "timestamp": at(hours=2), "policy": {"canary": tighter}},
        {**SCRAPE, "timestamp": at(hours=4)},
    )
    audit, _outcome = report.collect(tmp_path / "history.jsonl")
    found = [(limit.since - START.timestamp(), limit.p99) for limit in audit.tracks["web1"].limits]
    assert found == [(0.0, 500.0), (7200.0, 300.0)]
    assert "limit 300 ms" in words_in(charts.draw(audit).charts[0].svg)


def test_no_line_is_drawn_over_hours_without_a_reading(tmp_path: Path) -> None:
    made(
        tmp_path, SCRAPE, SCRAPE, {**SCRAPE, "timestamp": at(hours=5)}, {**SCRAPE, "timestamp": at(hours=5, minutes=1)}
    )
    audit, _outcome = report.collect(tmp_path / "history.jsonl")
    specification = charts.specification(audit.series["web1"], audit.tracks["web1"])
    line = next(layer for layer in specification["vconcat"][0]["layer"] if layer["mark"]["type"] == "line")
    assert [point["v"] for point in line["data"]["values"]] == [3.5, 3.5, None, 3.5, 3.5]
    (path,) = re.findall(r'<path d="(M[^"]*)" stroke="var\(--line\)"', charts.draw(audit).charts[0].svg)[:1]
    assert path.count("M") == 2


@pytest.mark.parametrize(
    "figures",
    [
        {},
        {"req_per_sec": 0.0, "error_rate": 0.0, "p99_latency_ms": 0.0},
        {"req_per_sec": 1e300, "error_rate": 1e-300, "p99_latency_ms": 1e12},
        {"req_per_sec": -5.0, "error_rate": -0.5, "p99_latency_ms": -1.0},
        {"req_per_sec": "fast", "error_rate": True, "p99_latency_ms": [1]},
        {"p99_latency_ms": 10**400},
    ],
)
@pytest.mark.parametrize("times", [[0.0], [0.0, 1e-3], [0.0, 1e9], [-6e10, 0.0, 2e11]])
def test_any_figures_at_any_times_can_be_drawn(figures: dict[str, Any], times: list[float]) -> None:
    audit = report.Audit()
    for seconds in times:
        moment = at(seconds=seconds)
        audit.add({"event": "status_scrape", "host": "web1", "timestamp": moment, **figures})
        audit.add({"event": "deploy", "host": "web1", "timestamp": moment})
    drawn = charts.draw(audit)
    assert drawn.problem == ""
    ElementTree.fromstring(drawn.charts[0].svg)


def test_many_hosts_have_some_charts_and_the_rest_is_told(tmp_path: Path) -> None:
    audit = report.Audit()
    for number in range(CHARTS + 3):
        audit.add({**SCRAPE, "host": f"web{number:02}", "timestamp": at()})
    drawn = charts.draw(audit)
    assert [chart.host for chart in drawn.charts] == [f"web{number:02}" for number in range(CHARTS)]
    text = html.render(document.make(audit, history.VerifyResult(True, 1), "h"), drawn)
    assert "3 more are in the table alone. -e host=NAME draws others." in text


def test_without_the_package_that_draws_the_report_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    found = made(tmp_path, SCRAPE)
    assert "pip install -r requirements.txt" in found.problem
    assert found.problem.replace("`", "&#96;") in found.html.replace("`", "&#96;")
    assert "<svg" not in found.html
    assert Page(found.html).rows["Metrics over time"]


def test_the_package_that_draws_is_loaded_only_to_draw() -> None:
    code = "import sys; from swiftdeploy import report; print('vl_convert' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_what_a_chart_is_made_of_stays_bounded() -> None:
    series, track = Series(300), Track()
    for number in range(20_000):
        series.add(60.0 * number, {"req_per_sec": 1.0})
        track.happened(60.0 * number, "deploy", "", shown=True)
        limits = {"thresholds": {"p99_latency_ms": number}}
        track.judged(60.0 * number, limits)
        track.happened(60.0 * number, "chaos", "slow", shown=True)
    assert len(series.buckets) <= 300
    assert len(track.marks) <= 400
    assert len(track.limits) <= 50
    assert len(track.chaos) <= 400
    assert len(charts.draw_one(series, track)) < 300_000
