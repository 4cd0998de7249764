"""What may be asked of fault injection, and the state that all workers share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from swift_service.chaos import NONE, Chaos, ChaosError, ChaosFile, parse_chaos


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"mode":"slow","duration":3}', Chaos("slow", duration=3.0)),
        ('{"mode":"slow","duration":0.25}', Chaos("slow", duration=0.25)),
        ('{"mode":"slow","duration":60}', Chaos("slow", duration=60.0)),
        ('{"mode":"error","rate":0.5}', Chaos("error", rate=0.5)),
        ('{"mode":"error","rate":1}', Chaos("error", rate=1.0)),
        ('{"mode":"error"}', Chaos("error", rate=0.5)),
        ('{"mode":"recover"}', NONE),
        (' \n{ "rate" : 1e-3, "mode" : "error" } ', Chaos("error", rate=0.001)),
    ],
)
def test_a_good_request_is_understood(body: str, expected: Chaos) -> None:
    assert parse_chaos(body.encode()) == expected


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON"),
        (b"mode=slow", "not JSON"),
        (b'{"mode":"slow","duration":3', "not JSON"),
        (b'\xff\xfe{"mode":"recover"}', "not JSON"),
        (b"[" * 4000, "not JSON"),
        (b'[{"mode":"recover"}]', "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'"recover"', "must be a JSON object"),
        (b"{}", '"mode" is missing'),
        (b'{"duration":3}', '"mode" is missing'),
        (b'{"mode":"fast"}', 'found "fast"'),
        (b'{"mode":"none"}', 'found "none"'),
        (b'{"mode":["slow"]}', '"mode" must be'),
        (b'{"mode":"slow"}', '"duration" is missing'),
        (b'{"mode":"slow","duration":0}', "above 0 and at most 60 seconds, found 0"),
        (b'{"mode":"slow","duration":-1}', "found -1"),
        (b'{"mode":"slow","duration":60.001}', "found 60.001"),
        (b'{"mode":"slow","duration":true}', "found true"),
        (b'{"mode":"slow","duration":null}', "found null"),
        (b'{"mode":"slow","duration":"3"}', 'found "3"'),
        (b'{"mode":"slow","duration":[3]}', '"duration" must be a number'),
        (b'{"mode":"slow","duration":NaN}', "NaN is not a JSON number"),
        (b'{"mode":"slow","duration":Infinity}', "Infinity is not a JSON number"),
        (b'{"mode":"slow","duration":1e999}', "at most 60"),
        (b'{"mode":"slow","duration":1e-999}', "above 0"),
        (b'{"mode":"slow","duration":' + b"9" * 4000 + b"}", "at most 60"),
        (b'{"mode":"slow","duration":' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"mode":"slow","duration":3,"rate":1}', 'unknown key "rate" for mode "slow"'),
        (b'{"mode":"error","rate":0}', "above 0 and at most 1, found 0"),
        (b'{"mode":"error","rate":1.1}', "found 1.1"),
        (b'{"mode":"error","rate":false}', "found false"),
        (b'{"mode":"error","rate":-Infinity}', "-Infinity is not a JSON number"),
        (b'{"mode":"error","probability":0.5}', 'unknown key "probability"'),
        (b'{"mode":"recover","rate":0.5}', 'allowed: "mode"'),
        (b'{"mode":"recover","mode":"error"}', '"mode" is given twice'),
    ],
)
def test_a_bad_request_is_refused_with_the_reason(body: bytes, reason: str) -> None:
    with pytest.raises(ChaosError) as caught:
        parse_chaos(body)
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 200


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_no_body_brings_anything_but_a_state_or_a_reason(body: bytes) -> None:
    try:
        chaos = parse_chaos(body)
    except ChaosError as problem:
        assert str(problem)
    else:
        assert chaos.mode in ("none", "slow", "error")


@given(st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False)))
def test_a_duration_is_taken_exactly_when_it_is_in_range(number: float) -> None:
    body = json.dumps({"mode": "slow", "duration": number}).encode()
    if 0 < number <= 60:
        assert parse_chaos(body).duration == number
    else:
        with pytest.raises(ChaosError):
            parse_chaos(body)


def test_what_one_worker_writes_another_reads(tmp_path: Path) -> None:
    writer, reader = ChaosFile(tmp_path / "chaos.json"), ChaosFile(tmp_path / "chaos.json")
    assert reader.read() == NONE
    for state in (Chaos("slow", duration=1.5), Chaos("error", rate=0.25), NONE):
        writer.write(state)
        assert reader.read() == state
    assert [path.name for path in tmp_path.iterdir()] == ["chaos.json"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"mode": "slow", "more": 1}', "null"])
def test_a_damaged_file_means_no_chaos(tmp_path: Path, content: str) -> None:
    (tmp_path / "chaos.json").write_text(content)
    assert ChaosFile(tmp_path / "chaos.json").read() == NONE


def test_a_state_is_shown_with_its_own_option_alone() -> None:
    assert Chaos("slow", duration=2.0).describe() == {"mode": "slow", "duration": 2.0}
    assert Chaos("error", rate=0.5).describe() == {"mode": "error", "rate": 0.5}
    assert NONE.describe() == {"mode": "none"}
