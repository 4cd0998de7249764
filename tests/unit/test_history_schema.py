"""history.schema.json: what is written conforms to it, and what it is for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.history_schema import validator, violations
from swiftdeploy import history, report

DECISION = {
    "outcome": "denied",
    "reasons": ["error rate is 5.00 %, maximum is 1.00 %"],
    "checked": {"error_rate": 0.05},
    "thresholds": {"error_rate": {"max": 0.01}, "environment": "local"},
    "decision_id": "4ca636c1-55e4-417a-b1d8-4aceb67960d1",
}
EVENTS: list[dict[str, Any]] = [
    {"event": "deploy", "host": "web1", "service": "app", "mode": "stable", "version": "1.0.0", "duration_s": 4.1},
    {"event": "promote_blocked", "mode": "canary", "error_rate": 0.05, "policy": {"canary": DECISION}, "weight": 25},
    {"event": "status_scrape", "req_per_sec": 12.5, "error_rate": 0.0, "p99_latency_ms": 81.2, "chaos": "none"},
    {"event": "something_new", "colour": "green", "files": 3},
]


def test_what_is_written_conforms(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    for event in EVENTS:
        history.append(path, event)
    history.append(path, {"event": "teardown"}, max_size=10)
    (tmp_path / "old").mkdir()
    history.archive(path, tmp_path / "old")
    with path.open("ab") as out:
        out.write(b'{"seq":')
    history.append(path, {"event": "chaos", "chaos": "slow"})
    assert violations(tmp_path / "old" / "history.jsonl") == []
    assert violations(path) == []
    assert [record["event"] for record in history.read(path)][-2:] == ["history_archived", "chaos"]


@pytest.mark.parametrize(
    "change",
    [
        {"seq": "1"},
        {"timestamp": "yesterday"},
        {"error_rate": 5},
        {"hash": "abc"},
        {"schema": None},
        {"policy": {"canary": {"outcome": "perhaps"}}},
        {"event": "deploy_interrupted"},
        {"event": "history_archived"},
    ],
)
def test_a_line_that_is_not_as_it_should_be_is_found(tmp_path: Path, change: dict[str, Any]) -> None:
    record = history.append(tmp_path / "h", EVENTS[0])
    assert list(validator().iter_errors(record)) == []
    assert list(validator().iter_errors({**record, **change})) != []


def test_every_key_that_is_always_there_is_required_and_described() -> None:
    schema = validator().schema
    always = [*history.FIELDS, "schema", "prev", "hash"]
    assert schema["required"] == always
    assert all(schema["properties"][key]["description"] for key in always)


def test_lines_of_an_older_and_of_a_later_version_are_read(tmp_path: Path) -> None:
    """The chain does not depend on which keys there are, and what is not known is passed over."""
    path, prev = tmp_path / "history.jsonl", "0" * 64
    raw = b""
    for seq, keys in enumerate([{}, {"schema": 1}, {"schema": 7, "later": {"x": [1]}, "policy": "in words"}], 1):
        record: dict[str, Any] = {"seq": seq, "timestamp": "2026-01-01T00:00:00.000Z", "event": "deploy", **keys}
        record["prev"] = prev
        prev = record["hash"] = history.digest(record)
        raw += history.encode(record)
    path.write_bytes(raw)
    assert history.verify(path) == history.VerifyResult(ok=True, records=3)
    text, outcome = report.build(path)
    assert outcome.ok
    assert "| deploy | 3 |" in text
    assert history.append(path, EVENTS[0])["prev"] == prev


def test_the_copy_at_the_root_is_the_one_that_is_shipped() -> None:
    root = Path(__file__).resolve().parents[2]
    shipped = root / "src" / "swiftdeploy" / "history.schema.json"
    assert json.loads(shipped.read_text()) == json.loads((root / "history.schema.json").read_text())
