"""Samples kept between runs: found when they are of use, never believed when anything speaks against them."""

from __future__ import annotations

import base64
import gzip
import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swiftdeploy_target import samples
from swiftdeploy_target.samples import Keeping, Now

RELEASES = {"blue": "r1", "green": "r2"}
BODY = 'http_requests_total{status="200"} 5\n'


def now(second: float) -> Now:
    """A moment that many seconds after an arbitrary one."""
    return Now(1_800_000_000.0 + second, 5000.0 + second)


def taken(second: float, slot: str = "blue", body: str = BODY) -> dict[str, Any]:
    taken_at = {"slot": slot, "at": now(second).at}
    return {**taken_at, "body": body, "content_type": "text/plain", "mark": f"mark{second:g}"}


@pytest.fixture
def keeping(tmp_path: Path) -> Keeping:
    return Keeping(tmp_path / samples.FILE_NAME, RELEASES, 30.0, 60.0)


def fill(keeping: Keeping, *seconds: float) -> None:
    """One measurement of the blue slot at each of ``seconds``."""
    for second in seconds:
        samples.keep(keeping, [taken(second)], now(second))


def test_a_sample_comes_back_as_it_was(keeping: Keeping) -> None:
    assert samples.keep(keeping, [taken(0), taken(0, "green", "up 1\n# é\n")], now(0))
    assert samples.pick(keeping, ["green", "blue"], now(30)) == [taken(0, "green", "up 1\n# é\n"), taken(0)]
    assert keeping.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("age", "found"), [(29.9, False), (30, True), (60, True), (60.1, False)])
def test_it_is_at_least_a_window_old_and_not_too_old(keeping: Keeping, age: float, found: bool) -> None:
    fill(keeping, 0)
    assert bool(samples.pick(keeping, ["blue"], now(age))) is found


def test_where_one_slot_has_none_there_are_none(keeping: Keeping) -> None:
    fill(keeping, 0)
    assert samples.pick(keeping, ["blue", "green"], now(40)) == []


def test_it_is_of_the_same_release(keeping: Keeping) -> None:
    fill(keeping, 0)
    assert samples.pick(keeping._replace(releases={"blue": "r9"}), ["blue"], now(40)) == []
    assert samples.pick(keeping._replace(releases={}), ["blue"], now(40)) == []


def test_a_refresh_every_few_seconds_leaves_one_that_is_hardly_older_than_a_window(keeping: Keeping) -> None:
    fill(keeping, *range(0, 600, 5))
    for second in range(600, 630):
        (found,) = samples.pick(keeping, ["blue"], now(second))
        assert 30 <= now(second).at - found["at"] < 30 + 15
    assert len(json.loads(keeping.path.read_text())["samples"]) <= 9


def test_a_failed_sample_is_not_kept(keeping: Keeping) -> None:
    failed = {"slot": "blue", "at": now(0).at, "cause": "refused", "detail": "nothing listens"}
    assert not samples.keep(keeping, [failed], now(0))
    assert not keeping.path.exists()


def test_a_clock_that_was_set_makes_it_worthless(keeping: Keeping) -> None:
    fill(keeping, 0)
    assert samples.pick(keeping, ["blue"], now(40)._replace(at=now(100).at)) == []
    assert samples.pick(keeping, ["blue"], now(40)._replace(at=now(-100).at)) == []
    (found,) = samples.pick(keeping, ["blue"], now(40)._replace(at=now(40.5).at))
    # A clock that is merely slewed does not bend the length of the window.
    assert now(40.5).at - found["at"] == pytest.approx(40)


def test_another_start_of_the_machine_makes_it_worthless(
    keeping: Keeping, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(keeping, 0)
    (tmp_path / "boot_id").write_text("another\n")
    monkeypatch.setattr(samples, "BOOT_ID", tmp_path / "boot_id")
    assert samples.pick(keeping, ["blue"], now(40)) == []


def test_the_file_stays_small(keeping: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = random.Random(1).randbytes(6000).hex()
    monkeypatch.setattr(samples, "MAX_FILE", 20_000)
    for second in (0, 15, 30, 45):
        samples.keep(keeping, [taken(second, body=noise)], now(second))
    assert keeping.path.stat().st_size <= 20_000
    # The newest are there.
    (found,) = samples.pick(keeping, ["blue"], now(80))
    assert found["at"] == now(45).at
    monkeypatch.setattr(samples, "MAX_SAMPLE", 4000)
    assert not samples.keep(keeping, [taken(70, body=noise)], now(70))


def test_a_stack_that_is_gone_stays_gone(keeping: Keeping) -> None:
    gone = keeping._replace(path=keeping.path.parent / "gone" / samples.FILE_NAME)
    assert not samples.keep(gone, [taken(0)], now(0))
    assert not gone.path.parent.exists()
    samples.forget(gone.path, [])


def test_what_is_forgotten_is_gone(keeping: Keeping) -> None:
    samples.keep(keeping, [taken(0), taken(0, "green")], now(0))
    samples.forget(keeping.path, ["r2"])
    assert samples.pick(keeping, ["blue"], now(40)) == []
    assert samples.pick(keeping, ["green"], now(40))
    samples.forget(keeping.path, ["r3"])
    assert not keeping.path.exists()


def damaged(found: Any) -> st.SearchStrategy[Any]:
    """The contents of a file with one value replaced by something else."""
    anything = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.just([]) | st.just({})
    entry = found["samples"][0]
    return st.one_of(
        st.builds(lambda key, value: {**found, key: value}, st.sampled_from(sorted(found)), anything),
        st.builds(
            lambda key, value: {**found, "samples": [{**entry, key: value}]}, st.sampled_from(sorted(entry)), anything
        ),
        st.builds(
            lambda key: {**found, "samples": [{k: v for k, v in entry.items() if k != key}]},
            st.sampled_from(sorted(entry)),
        ),
        st.builds(lambda value: {**found, "samples": [value, entry]}, anything),
    )


@given(st.data())
@settings(deadline=None, max_examples=200)
def test_no_damage_breaks_it_or_makes_up_a_sample(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    keeping = Keeping(tmp_path_factory.mktemp("kept") / samples.FILE_NAME, RELEASES, 30.0, 60.0)
    fill(keeping, 0)
    good = keeping.path.read_bytes()
    bad = data.draw(
        st.one_of(
            st.binary(max_size=60),
            st.integers(0, len(good)).map(lambda cut: good[:cut]),
            damaged(json.loads(good)).map(lambda found: json.dumps(found).encode()),
        )
    )
    keeping.path.write_bytes(bad)
    for found in samples.pick(keeping, ["blue"], now(40)):
        assert (found["slot"], found["body"]) == ("blue", BODY)
        assert 30 <= now(40).at - found["at"] <= 60
    assert samples.keep(keeping, [taken(80)], now(80))
    assert samples.pick(keeping, ["blue"], now(110)) == [taken(80)]


@pytest.mark.parametrize("key", ["at", "ticks"])
@pytest.mark.parametrize("value", [10**400, -(10**400), True, float("nan"), float("inf"), "5000", None])
def test_a_time_that_is_none_makes_it_worthless(keeping: Keeping, key: str, value: Any) -> None:
    fill(keeping, 0)
    found = json.loads(keeping.path.read_text())
    found["samples"][0][key] = value
    keeping.path.write_text(json.dumps(found))
    assert samples.pick(keeping, ["blue"], now(40)) == []


def test_a_packed_sample_cannot_blow_up(keeping: Keeping) -> None:
    fill(keeping, 0)
    found = json.loads(keeping.path.read_text())
    bomb = gzip.compress(b"a" * (samples.MAX_BODY + 1), 9)
    found["samples"][0]["body"] = base64.b64encode(bomb).decode()
    keeping.path.write_text(json.dumps(found))
    assert samples.pick(keeping, ["blue"], now(40)) == []


def test_the_clocks_of_this_machine_agree(keeping: Keeping) -> None:
    """Both clocks are of one moment in two processes, or nothing kept would ever be found."""
    first = Now(time.time(), time.monotonic())
    samples.keep(keeping, [{**taken(0), "at": first.at}], first)
    later = Now(time.time() + 31, time.monotonic() + 31)
    assert samples.pick(keeping, ["blue"], later)
