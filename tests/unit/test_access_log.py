"""The proxy's view: which lines of nginx's log count for which slot, and how much of the log is read."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swiftdeploy_target import access_log
from swiftdeploy_target.access_log import LogError, Tally, parse_line, percentile, proxy_figures, read_docker, read_file

SLOTS = [{"slot": "blue", "match": ["127.0.0.1:3000"]}, {"slot": "green", "match": ["127.0.0.1:3001"]}]
T = 1795233300.0


def line(end: float = T, **fields: Any) -> str:
    data = {
        "time": "2026-11-21T03:55:00+00:00",
        "msec": end,
        "source": "127.0.0.1",
        "method": "GET",
        "path": "/",
        "status": 200,
        "request_time": 0.004,
        "upstream": "127.0.0.1:3000",
        "upstream_time": "0.003",
        "slot": "blue",
        "bytes": 123,
        "probe": False,
        **fields,
    }
    return json.dumps(data)


def figures(path: Path, since: float = T - 10, until: float = T + 10, exclude: tuple[str, ...] = ()) -> Any:
    return proxy_figures({"kind": "file", "path": str(path)}, SLOTS, since, until, exclude)["slots"]


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{one}\n" for one in lines))
    return path


def test_counts_errors_probes_and_times_of_each_slot(tmp_path: Path) -> None:
    log = write(
        tmp_path / "access.log",
        line(),
        line(status=500, request_time=0.1),
        line(status=504, request_time=30.0, probe=True),
        line(status=499, request_time=7.0),
        line(status=404),
        line(slot="green", upstream="127.0.0.1:3001", status=503),
    )
    got = figures(log)
    # What the client gave up, or got wrong, is neither a success nor an error.
    assert (got["blue"]["requests"], got["blue"]["errors"], got["blue"]["probes"]) == (3, 2, 1)
    assert (got["blue"]["abandoned"], got["blue"]["client_errors"], got["blue"]["seen"]) == (1, 1, 5)
    assert (got["blue"]["p50_ms"], got["blue"]["p99_ms"]) == (pytest.approx(100.0), pytest.approx(30000.0))
    assert (got["green"]["requests"], got["green"]["errors"]) == (1, 1)
    assert got["blue"]["truncated"] is False


def test_a_slot_without_requests_has_null_times(tmp_path: Path) -> None:
    got = figures(write(tmp_path / "a", line()))["green"]
    assert (got["requests"], got["errors"], got["p50_ms"], got["p99_ms"]) == (0, 0, None, None)


def test_the_window_ends_where_it_ends(tmp_path: Path) -> None:
    log = write(tmp_path / "a", line(T - 10), line(T - 9.999), line(T), line(T + 10), line(T + 10.001))
    assert figures(log)["blue"]["requests"] == 3


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/chaos", "/up", "/up?x=1"])
def test_health_metrics_and_chaos_are_no_evidence(tmp_path: Path, path: str) -> None:
    log = write(tmp_path / "a", line(path=path, status=500), line(path="/upper"))
    assert figures(log, exclude=("/up",))["blue"]["requests"] == 1


@pytest.mark.parametrize("upstream", ["", "-", " "])
def test_what_nginx_answered_by_itself_says_nothing_about_a_slot(tmp_path: Path, upstream: str) -> None:
    log = write(tmp_path / "a", line(upstream=upstream, slot="blue", status=403))
    assert figures(log)["blue"]["requests"] == 0


@pytest.mark.parametrize(
    ("slot", "upstream", "counted"),
    [
        ("", "127.0.0.1:3000", "blue"),
        ("", "127.0.0.1:3000, 127.0.0.1:3001", "green"),  # after a retry: the one that answered
        ("", "127.0.0.1:3001 : 127.0.0.1:3000", "blue"),  # after an internal redirect
        ("green", "127.0.0.1:3000", "green"),  # nginx's own word goes first
        ("", "127.0.0.1:9", None),
        ("red", "127.0.0.1:3000", None),
    ],
)
def test_the_slot_of_a_line(tmp_path: Path, slot: str, upstream: str, counted: str | None) -> None:
    got = figures(write(tmp_path / "a", line(slot=slot, upstream=upstream)))
    assert [name for name in ("blue", "green") if got[name]["requests"]] == ([counted] if counted else [])


BOTH = "127.0.0.1:3000, 127.0.0.1:3001"


def retried(**fields: Any) -> str:
    """A line of a request that failed at blue after 2 s and was answered by green 0.5 s later."""
    given = {"upstream": BOTH, "upstream_status": "502, 200", "upstream_time": "2.000, 0.500", "slot": "green"}
    return line(**{**given, "request_time": 2.5, **fields})


def test_an_attempt_in_vain_is_an_error_of_its_slot_and_no_time_of_the_other(tmp_path: Path) -> None:
    got = figures(write(tmp_path / "a", retried(probe=True)))
    assert [got["blue"][name] for name in ("requests", "errors", "probes", "p99_ms")] == [1, 1, 1, 2000.0]
    assert [got["green"][name] for name in ("requests", "errors", "probes", "p99_ms")] == [1, 0, 1, 500.0]


@pytest.mark.parametrize(
    ("fields", "blue", "green"),
    [
        pytest.param({"upstream_status": "504, 200"}, (1, 1), (1, 0), id="out-of-time"),
        pytest.param({"upstream_status": "502, 502", "status": 502}, (1, 1), (1, 1), id="both-in-vain"),
        pytest.param({"upstream_status": "404, 200"}, (0, 0), (1, 0), id="a-status-that-is-no-error"),
        pytest.param({"upstream_status": "-, 200"}, (1, 1), (1, 0), id="no-status-of-the-attempt"),
        pytest.param({"slot": ""}, (1, 1), (1, 0), id="no-slot-named"),
        pytest.param({"upstream": BOTH.replace(",", " :")}, (1, 1), (1, 0), id="after-an-internal-redirect"),
        pytest.param({"upstream_status": None}, (0, 0), (1, 0), id="no-field"),
        pytest.param({"upstream_status": ""}, (0, 0), (1, 0), id="empty-field"),
        pytest.param({"upstream_status": "200"}, (0, 0), (1, 0), id="fewer-statuses-than-addresses"),
        pytest.param({"upstream_status": 502}, (0, 0), (1, 0), id="a-number"),
        pytest.param({"upstream": "127.0.0.1:9, 127.0.0.1:3001"}, (0, 0), (1, 0), id="an-address-of-no-slot"),
        pytest.param({"upstream": "127.0.0.1:3000, weighted", "slot": ""}, (1, 1), (0, 0), id="nobody-left-to-try"),
        pytest.param({"status": 499, "upstream_status": "502, -"}, (1, 1), (0, 0), id="client-went-away"),
    ],
)
def test_what_each_slot_has_of_a_request_tried_twice(
    tmp_path: Path, fields: dict[str, Any], blue: tuple[int, int], green: tuple[int, int]
) -> None:
    got = figures(write(tmp_path / "a", retried(**fields)))
    assert (got["blue"]["requests"], got["blue"]["errors"]) == blue
    assert (got["green"]["requests"], got["green"]["errors"]) == green


def test_retries_within_one_slot_count_once_with_the_last_status(tmp_path: Path) -> None:
    within = line(upstream="127.0.0.1:3000, 127.0.0.1:3000", upstream_status="502, 200", upstream_time="2.000, 0.500")
    got = figures(write(tmp_path / "a", within.replace("0.004", "2.5")))
    assert [got["blue"][name] for name in ("requests", "errors", "p99_ms")] == [1, 0, 2500.0]
    fields = {
        "upstream": "127.0.0.1:3000, 127.0.0.1:3001, 127.0.0.1:3000, 127.0.0.1:3001",
        "upstream_status": "502, 502, 504, 200",
        "upstream_time": "1.000, 0.250, 2.000, 0.250",
        "request_time": 3.5,
    }
    got = figures(write(tmp_path / "b", retried(**fields)))
    assert [got["blue"][name] for name in ("requests", "errors", "p99_ms")] == [1, 1, 2000.0]
    assert [got["green"][name] for name in ("requests", "errors", "p99_ms")] == [1, 0, 500.0]


@pytest.mark.parametrize("times", ["-, 0.500", "", "0.500", "nan, 1", None, "1e9, 0"])
def test_an_attempt_without_a_time_is_never_taken_for_a_fast_one(tmp_path: Path, times: str | None) -> None:
    got = figures(write(tmp_path / "a", retried(upstream_time=times)))
    assert (got["blue"]["errors"], got["blue"]["p99_ms"], got["green"]["p99_ms"]) == (1, 2500.0, 2500.0)


def test_torn_and_foreign_lines_are_passed_over(tmp_path: Path) -> None:
    log = tmp_path / "a"
    torn = line()[:60]
    odd = [
        "2026/11/21 03:55:00 [error] 7#7: connect() failed",
        "{}",
        "[1]",
        "null",
        '{"msec": "x"}',
        line(status=None),
        line(status=True),
        line(slot=None),
        line(request_time=-1),
        '{"a":' * 3000,
        line(path="x" * 70000),
        line().replace("0.004", "NaN"),
        line().replace("0.004", "1" * 500),
    ]
    log.write_bytes(("\n".join([torn, line(), *odd, line(), torn])).encode() + b"\xff\xfe\x00")
    assert figures(log)["blue"]["requests"] == 2


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.integers(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["msec", "status", "request_time", "slot", "upstream", "path", "probe"]),
                inner | st.sampled_from(["127.0.0.1:3000, 127.0.0.1:3001", "502, 200", "-", "1e9, 0x1"]),
                max_size=7,
            )
        ),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode())
)
@settings(deadline=None, max_examples=300)
def test_no_line_breaks_it(data: bytes) -> None:
    request = parse_line(data)
    if request is not None:
        Tally(SLOTS, 0, 1e12, []).add(request)
        assert request.seconds >= 0


@pytest.mark.parametrize(
    ("values", "q", "expected"),
    [
        ([], 0.5, None),
        ([7], 0.99, 7),
        ([1, 2, 3, 4], 0.5, 2),
        (range(1, 101), 0.99, 99),
        (range(1, 21), 0.95, 19),
        (range(1, 101), 0.07, 7),
    ],
)
def test_nearest_rank(values: Any, q: float, expected: float | None) -> None:
    assert percentile(list(values), q) == expected


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.integers(1, 99))
@settings(deadline=None)
def test_nearest_rank_is_the_smallest_value_that_covers_q(values: list[float], percent: int) -> None:
    answer = percentile(sorted(values), percent / 100)
    assert answer in values
    assert sum(value <= answer for value in values) * 100 >= percent * len(values)
    assert sum(value < answer for value in values) * 100 < percent * len(values)


# --- who counts ------------------------------------------------------------------------------------------


def test_a_flood_of_client_errors_dilutes_nothing(tmp_path: Path) -> None:
    real = [line(status=500 if number < 5 else 200) for number in range(100)]
    flood = [line(status=status, path="/x", source="6.6.6.6") for status in (400, 401, 404, 429, 451) * 400]
    got = figures(write(tmp_path / "a", *real, *flood))["blue"]
    assert (got["requests"], got["errors"], got["client_errors"], got["seen"]) == (100, 5, 2000, 2100)


def test_a_client_that_chose_the_slot_is_no_evidence_unless_it_is_our_probe(tmp_path: Path) -> None:
    log = write(
        tmp_path / "a",
        *(line(forced=True) for _ in range(85)),
        line(forced=True, probe=True, probe_id="ours"),
        *(line(forced=True, probe=True, probe_id="theirs") for _ in range(9)),
        line(probe=True, probe_id="theirs"),
        line(status=500),
    )
    got = proxy_figures({"kind": "file", "path": str(log)}, SLOTS, T - 10, T + 10, own="ours")["slots"]["blue"]
    assert (got["requests"], got["errors"], got["probes"], got["forced"], got["seen"]) == (3, 1, 2, 94, 97)
    # Where nothing is known of probes of ours, none is.
    assert figures(log)["blue"]["forced"] == 95


def test_one_busy_source_does_not_hide_the_others(tmp_path: Path) -> None:
    flood = [line(source="6.6.6.6") for _ in range(900)]
    users = [line(source=f"10.0.0.{number}", status=500 if number < 10 else 200) for number in range(100)]
    got = figures(write(tmp_path / "a", *flood, *users, line(probe=True)))["blue"]
    assert (got["clients"], got["largest_source"]) == (1000, 900)
    assert (got["rest_requests"], got["rest_errors"]) == (100, 10)


@pytest.mark.parametrize(
    ("fields", "counted"),
    [
        ({"completed": "OK", "sent_length": "100", "body": 100}, (1, 0, 0, 0)),
        ({"completed": "OK", "sent_length": "100", "body": 99}, (1, 1, 1, 0)),
        ({"completed": True, "sent_length": 100, "body": "40"}, (1, 1, 1, 0)),
        ({"completed": "OK", "sent_length": "100", "body": 0, "method": "HEAD"}, (1, 0, 0, 0)),
        ({"completed": "OK", "sent_length": "100", "body": 0, "status": 304}, (1, 0, 0, 0)),
        ({"completed": "OK", "sent_length": "", "body": 40}, (1, 0, 0, 0)),  # it did not say how long it is
        ({"completed": "", "sent_length": "100", "body": 40}, (1, 0, 0, 1)),  # the client left
        ({"completed": False, "sent_length": "100", "body": 40}, (1, 0, 0, 1)),
        ({"completed": "OK", "sent_length": "167", "body": 0, "status": 502}, (1, 1, 0, 0)),
        ({"completed": "", "sent_length": "", "body": 0, "status": 499}, (0, 0, 0, 0)),
        ({"completed": "OK", "sent_length": "x", "body": None}, (1, 0, 0, 0)),
        ({}, (1, 0, 0, 0)),  # a line of an older configuration
    ],
)
def test_an_answer_that_was_broken_off_is_an_error(
    tmp_path: Path, fields: dict[str, Any], counted: tuple[int, int, int, int]
) -> None:
    got = figures(write(tmp_path / "a", line(**fields)))["blue"]
    assert tuple(got[name] for name in ("requests", "errors", "broken", "left")) == counted


def test_what_clients_use_and_the_slot_had_nothing_of(tmp_path: Path) -> None:
    stable = {"slot": "blue"}
    canary = {"slot": "green", "upstream": "127.0.0.1:3001"}
    log = write(
        tmp_path / "a",
        *(line(**stable) for _ in range(6)),
        *(line(**stable, method="POST", path=f"/cart/{number}/items") for number in range(3)),
        line(**stable, path="/admin.php", status=404),  # nothing that is there
        line(**stable, path="/only-probed", probe=True),
        line(**stable, method="PUT", path="/b/6f1c2a3d-5e6f/x"),
        line(**canary, probe=True),
        line(**canary, method="POST", path="/cart/7/items", forced=True),
    )
    got = figures(log)
    assert got["green"]["unexercised"] == [
        {"route": "POST /cart/*/items", "requests": 3},
        {"route": "PUT /b/*/x", "requests": 1},
    ]
    assert got["green"]["unexercised_share"] == 0.4
    assert got["green"]["methods"] == {"GET": 1}
    assert (got["blue"]["unexercised"], got["blue"]["unexercised_share"]) == (None, None)


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/", "GET /"),
        ("GET", "/users/17/orders/2024-11-30", "GET /users/*/orders/*"),
        ("POST", "/api/v1/items", "POST /api/v1/items"),
        ("DELETE", "/a/b/c/d/e/f", "DELETE /a/b/c/d/..."),
        ("BREW", "/pot", "OTHER /pot"),
        ("GET", "/f/6f1c2a3d-5e6f-4a7b-8c9d-0e1f2a3b4c5d", "GET /f/*"),
        ("GET", "/\x1b[31m/ä", "GET /??31m/?"),
        ("GET", "/" + "long" * 100, "GET /" + "long" * 19 + "lon"),
    ],
)
def test_routes_are_short_and_shared(method: str, path: str, expected: str) -> None:
    assert access_log.route(method, path) == expected


def test_routes_without_number_do_not_grow_without_end(tmp_path: Path) -> None:
    flood = (line(path=f"/{'x' * (number % 70)}/{'y' * (number // 70)}") for number in range(3000))
    log = write(tmp_path / "a", *flood, line(slot="green", upstream="127.0.0.1:3001"))
    assert len(figures(log)["green"]["unexercised"]) == access_log.NAMED_ROUTES


# --- how much of the log is read -------------------------------------------------------------------------


def test_the_window_goes_on_in_rotated_files(tmp_path: Path) -> None:
    log = tmp_path / "a"
    write(tmp_path / "a.2", line(T - 100), line(T - 9))
    write(tmp_path / "a.1", line(T - 5), line(T - 4))
    write(log, line(T))
    assert figures(log)["blue"] == {
        "requests": 4,
        "errors": 0,
        "broken": 0,
        "client_errors": 0,
        "abandoned": 0,
        "left": 0,
        "forced": 0,
        "probes": 0,
        "seen": 4,
        "answered": 4,
        "methods": {"GET": 4},
        "clients": 4,
        "largest_source": 4,
        "rest_requests": 0,
        "rest_errors": 0,
        "unexercised": None,
        "unexercised_share": None,
        "p50_ms": 4.0,
        "p95_ms": 4.0,
        "p99_ms": 4.0,
        "truncated": False,
    }


@pytest.mark.parametrize("free", ["a", "a.1"])
def test_in_the_middle_of_a_rotation_one_number_is_free(tmp_path: Path, free: str) -> None:
    write(tmp_path / "a", line(T))
    write(tmp_path / "a.1", line(T - 1))
    write(tmp_path / "a.2", line(T - 2))
    (tmp_path / free).unlink()
    assert figures(tmp_path / "a")["blue"]["requests"] == 2


def test_a_file_under_two_names_is_read_once(tmp_path: Path) -> None:
    write(tmp_path / "a", line(T))
    os.link(tmp_path / "a", tmp_path / "a.1")
    write(tmp_path / "a.2", line(T - 1))
    assert figures(tmp_path / "a")["blue"]["requests"] == 2


def test_a_file_renamed_while_it_is_read_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = write(tmp_path / "a", line(T))
    write(tmp_path / "a.1", line(T - 1))
    really_open = access_log._open_regular

    def rotate_after_open(path: str) -> Any:
        stream = really_open(path)
        if path == str(log) and not (tmp_path / "a.2").exists():
            (tmp_path / "a.1").rename(tmp_path / "a.2")
            log.rename(tmp_path / "a.1")
            write(log)
        return stream

    monkeypatch.setattr(access_log, "_open_regular", rotate_after_open)
    assert figures(log)["blue"]["requests"] == 2


def test_rotated_files_that_do_not_reach_back_are_reported(tmp_path: Path) -> None:
    write(tmp_path / "a", line(T))
    assert figures(tmp_path / "a")["blue"]["truncated"] is False  # a proxy that has just started
    write(tmp_path / "a.1", line(T - 1))
    assert figures(tmp_path / "a")["blue"]["truncated"] is True


def marked(path: Path, begin: str, end: str, since: float = T - 10) -> Any:
    log = {"kind": "file", "path": str(path)}
    return proxy_figures(log, SLOTS, since, T + 10, marks=(begin, end))["slots"]["blue"]


def mark(word: str, end: float) -> str:
    return line(end, path=f"/_swiftdeploy/mark/{word}", upstream="", slot="", status=204)


def test_a_log_shows_by_itself_that_it_reaches_over_the_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_log, "ARRIVAL_SECONDS", 0.0)
    whole = write(tmp_path / "a", mark("b1", T - 10), line(), mark("e1", T + 10))
    assert (marked(whole, "b1", "e1")["truncated"], marked(whole, "b1", "e1")["requests"]) == (False, 1)
    # The begin was rotated away: what is left says nothing about what was lost.
    assert marked(write(tmp_path / "b", line(), mark("e1", T + 10)), "b1", "e1")["truncated"]
    # The end has not arrived, or was never written.
    assert marked(write(tmp_path / "c", mark("b1", T - 10), line()), "b1", "e1")["truncated"]
    # No mark could be written before: a line of before the window is as good, one from within is not.
    assert not marked(write(tmp_path / "d", line(T - 12), line(), mark("e1", T + 10)), "", "e1")["truncated"]
    assert marked(write(tmp_path / "e", line(T - 9), line(), mark("e1", T + 10)), "", "e1")["truncated"]
    # Rotation alone is no loss.
    write(tmp_path / "f.1", mark("b1", T - 10), line(T - 5))
    assert not marked(write(tmp_path / "f", line(), mark("e1", T + 10)), "b1", "e1")["truncated"]
    # A stranger's mark is none of ours.
    assert marked(write(tmp_path / "g", mark("x", T - 10), line(), mark("e1", T + 10)), "b1", "e1")["truncated"]


def test_the_newest_lines_are_waited_for(tmp_path: Path) -> None:
    log = write(tmp_path / "a", mark("b1", T - 10), line())
    late = threading.Timer(0.3, lambda: log.write_text(log.read_text() + mark("e1", T + 10) + "\n"))
    late.start()
    assert marked(log, "b1", "e1")["truncated"] is False
    late.join()


def test_the_services_window_may_begin_earlier(tmp_path: Path) -> None:
    log = write(tmp_path / "a", line(T - 25, status=404), *(line(T - 20) for _ in range(9)), line(status=500))
    found = proxy_figures({"kind": "file", "path": str(log)}, SLOTS, T - 10, T + 10, seen_since=T - 30)
    got = found["slots"]["blue"]
    # A fault of the last window is not diluted by the calm before it.
    assert (got["requests"], got["errors"], got["seen"], got["answered"]) == (1, 1, 11, 10)


def test_only_the_end_of_a_large_log_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_log, "BLOCK", 1000)
    log = write(tmp_path / "a", *(line(T - 2000 + second) for second in range(2001)))
    read = []
    really_read = access_log.parse_line

    def count(data: bytes) -> Any:
        read.append(data)
        return really_read(data)

    monkeypatch.setattr(access_log, "parse_line", count)
    assert figures(log)["blue"]["requests"] == 10
    assert len(read) < 30


@pytest.mark.parametrize("block", [1, 7, 64, 300, 100000])
def test_every_line_is_read_once_whatever_the_block_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(access_log, "BLOCK", block)
    log = write(tmp_path / "a", *(line(request_time=number) for number in range(9)))
    got = figures(log)["blue"]
    assert (got["requests"], got["p99_ms"]) == (9, 8000)


def test_the_bound_on_bytes_is_reported(tmp_path: Path) -> None:
    log = write(tmp_path / "a", *(line() for _ in range(100)))
    tally = Tally(SLOTS, T - 10, T + 10, [])
    assert read_file(str(log), T - 10, tally, max_bytes=3000) is True
    assert 0 < tally.figures(True)["blue"]["requests"] < 12


def test_a_file_without_line_ends_is_no_memory_of_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_log, "BLOCK", 1000)
    monkeypatch.setattr(access_log, "MAX_LINE", 2000)
    (tmp_path / "a").write_text(line() + "\n" + line() + "x" * 5000 + line() + "\n" + line() + "\n")
    assert figures(tmp_path / "a")["blue"]["requests"] == 2


def test_a_log_that_is_not_there_or_no_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, cause in [(tmp_path / "none", "log_missing"), (pipe, "log_unreadable"), (tmp_path, "log_unreadable")]:
        got = proxy_figures({"kind": "file", "path": str(path)}, SLOTS, T, T + 1)
        assert got["cause"] == cause
        assert str(path) in got["detail"]


# --- the output of a container (a program in docker's place) ---------------------------------------------


def program(tmp_path: Path, body: str) -> str:
    path = tmp_path / "docker"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_container_output_is_standard_output_since_the_window(tmp_path: Path) -> None:
    (tmp_path / "lines").write_text(f"{line()}\nstarted\n{line(status=500)}")
    docker = program(tmp_path, f'echo "$@" > {tmp_path}/asked; echo {line()!r} >&2; cat {tmp_path}/lines')
    tally = Tally(SLOTS, T - 10, T + 10, [])
    assert read_docker("nginx-1", T - 10, tally, 20, program=docker) is False
    assert tally.figures(False)["blue"]["requests"] == 2
    assert (tmp_path / "asked").read_text().split() == ["logs", "--since", f"{T - 15:.3f}", "nginx-1"]


@pytest.mark.parametrize(
    ("body", "timeout", "cause", "words"),
    [
        ("echo 'Error: No such container: nginx' >&2; exit 1", 20, "log_unreadable", "No such container"),
        ("exec sleep 60", 0.2, "timeout", "0.2 s"),
        ("while :; do echo x; done", 0.2, "timeout", "0.2 s"),
        ("while :; do echo x >&2; done", 0.2, "timeout", "0.2 s"),
    ],
)
def test_a_container_log_that_does_not_come(tmp_path: Path, body: str, timeout: float, cause: str, words: str) -> None:
    with pytest.raises(LogError) as caught:
        read_docker("nginx", T, Tally(SLOTS, T, T, []), timeout, program=program(tmp_path, body))
    assert caught.value.cause == cause
    assert words in caught.value.detail


def test_an_endless_container_log_is_cut(tmp_path: Path) -> None:
    docker = program(tmp_path, f"while :; do echo '{line()}'; done")
    tally = Tally(SLOTS, T - 10, T + 10, [])
    assert read_docker("nginx", T - 10, tally, 60, max_bytes=50000, program=docker) is True
    assert tally.figures(True)["blue"]["requests"] > 10


@pytest.mark.parametrize("name", ["--follow", "a b", "", "$(id)", "-f"])
def test_a_container_name_is_never_an_option(name: str) -> None:
    got = proxy_figures({"kind": "docker", "container": name}, SLOTS, T, T + 1)
    assert got["cause"] == "log_missing"


def test_docker_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    got = proxy_figures({"kind": "docker", "container": "nginx"}, SLOTS, T, T + 1)
    assert got["cause"] == "log_unreadable"
    assert "docker cannot be run" in got["detail"]


def test_the_begin_of_an_overlong_line_is_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_log, "BLOCK", 1000)
    monkeypatch.setattr(access_log, "MAX_LINE", 2000)
    # The third block from the end begins right after what looks like a whole line.
    (tmp_path / "a").write_text(line() + "x" * 2999 + "\n")
    assert figures(tmp_path / "a")["blue"]["requests"] == 0
