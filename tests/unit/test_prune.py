"""What a host still needs of its releases, and which images and folders nothing needs any more."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from swiftdeploy_target import keep, prune, samples, state

DAY = 86400.0
LONG_AGO = time.time() - 3 * DAY
KEY = "0123456789a{}"


def image_id(number: int) -> str:
    return f"sha256:{number:064x}"


def release(number: int, mode: str = "stable", **artifact: Any) -> dict[str, Any]:
    spec = {"image": f"app:{number}", "artifact": artifact or {"image_id": image_id(number)}, "command": None}
    return {
        "id": f"r{number}", "version": f"1.{number}.0", "image": f"app:{number}", "mode": mode, "spec": spec,
        "spec_hash": f"h{number}", "slot": ("blue", "green")[number % 2], "time": "", "outcome": "new",
    }  # fmt: skip


def deployed(*releases: dict[str, Any]) -> state.State:
    """The state after each of ``releases`` went live and the one before it was left in its slot."""
    current = state.empty("app")
    for entry in releases:
        current = state.commit(current, entry, "docker")
    return current


def test_an_empty_host_needs_nothing() -> None:
    assert prune.needed(state.empty("app")) == {"releases": [], "images": set(), "names": set(), "folders": set()}


def test_the_last_five_are_needed_and_the_last_stable_one_however_old() -> None:
    current = deployed(release(1), *(release(number, "canary") for number in range(2, 9)))
    assert prune.needed(current)["images"] == {image_id(number) for number in (1, 4, 5, 6, 7, 8)}
    assert prune.needed({**current, "last_stable": None})["releases"] == ["r4", "r5", "r6", "r7", "r8"]


def test_what_starts_beside_the_live_release_is_needed_and_so_is_the_way_back() -> None:
    current = deployed(*(release(number) for number in range(1, 7)))
    current["slots"]["green"] = {**release(7), "outcome": "starting"}
    found = prune.needed(current)
    assert image_id(7) in found["images"]
    assert "app:7" in found["names"]
    good = state.last_good(current)
    assert good is not None
    assert good["spec"]["artifact"]["image_id"] in found["images"]


def test_a_slot_that_waits_with_an_old_release_needs_it() -> None:
    current = deployed(*(release(number) for number in range(1, 7)))
    current["slots"]["green"] = release(1)
    assert image_id(1) in prune.needed(current)["images"]


def test_folders_are_those_of_services_and_whatever_a_command_names() -> None:
    one = release(1, service_dir="/p/service-1", service_command=["/p/env-1/bin/python", "-m", "swift_service"])
    two = release(2, service_dir="/p/service-2", service_command=["python"])
    two["spec"]["command"] = ["sh", "-c", "exec /p/env-2/bin/python"]
    folders = prune.needed(deployed(one, two))["folders"]
    assert folders == {"/p/service-1", "/p/env-1/bin/python", "/p/service-2", "exec /p/env-2/bin/python"}


# --- images ---------------------------------------------------------------------------------------------------------

OPTIONS = {"nginx_image": "nginx:1.31.3"}


def record(number: int, *tags: str, label: str = "", layers: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    """What docker tells of an image; ``label`` is the repository it was built here for."""
    labels = {"org.swiftdeploy.inputs": "x", "org.swiftdeploy.repository": label} if label else None
    return {
        "Id": image_id(number), "RepoTags": list(tags), "Parent": "", "Created": "2020-01-01T00:00:00.123456789Z",
        "Metadata": {"LastTagTime": "0001-01-01T00:00:00Z"}, "Config": {"Labels": labels},
        "RootFS": {"Layers": list(layers)}, **more,
    }  # fmt: skip


def chosen(
    *records: dict[str, Any], options: dict[str, Any] | None = None, others: tuple[state.State, ...] = ()
) -> list[str]:
    """Ids that go when release 1 has left a host that keeps 2 to 6."""
    before = deployed(*(release(number) for number in range(1, 6)))
    after = state.commit(before, release(6), "docker")
    wanted = prune.wanted_images({**OPTIONS, **(options or {})}, before, [after, *others])
    return [entry["Id"] for entry in prune.plan_images(list(records), wanted, time.time(), DAY)]


def test_the_image_of_a_dropped_release_goes_and_those_of_kept_ones_stay() -> None:
    records = [record(number, f"app:{number}") for number in range(1, 7)]
    assert chosen(*records) == [image_id(1)]
    assert chosen(record(1)) == [image_id(1)]


def test_a_dropped_image_with_a_name_of_the_users_own_stays() -> None:
    assert chosen(record(1, "app:1", "app:precious")) == []
    assert chosen(record(1, "precious:1")) == []


def test_an_image_whose_name_the_next_run_would_take_stays() -> None:
    # The name of a kept release was put back on the old image.
    assert chosen(record(1, "app:5")) == []


@pytest.mark.parametrize("name", ["nginx:1.31.3", "python:3.13-slim", "swiftdeploy/python:3.13", "opa:1"])
def test_the_stacks_own_images_and_bases_stay_even_when_a_release_ran_them(name: str) -> None:
    first = release(1)
    first["spec"]["image"] = name
    before = deployed(first, *(release(number) for number in range(2, 6)))
    after = state.commit(before, release(6), "docker")
    options = {**OPTIONS, "keep_images": ["opa:1"]}
    wanted = prune.wanted_images(options, before, [after])
    assert prune.plan_images([record(1, name)], wanted, time.time(), DAY) == []


def test_another_service_on_the_host_keeps_what_it_needs() -> None:
    other = deployed(release(1))
    assert chosen(record(1, "app:1"), others=(other,)) == []


def test_an_image_built_here_that_lost_its_name_goes_and_nobody_elses_does() -> None:
    old = record(20, label="app")
    assert chosen(old) == [image_id(20)]
    assert chosen(record(21, label="nginx"), record(22, label="swiftdeploy/python")) == [image_id(21), image_id(22)]
    assert chosen(record(23, label="other")) == []
    assert chosen(record(24)) == []
    assert chosen(record(25, "app:new", label="app")) == []
    # Still a release's.
    assert chosen(record(6, label="app")) == []


@pytest.mark.parametrize("key", ["Created", "LastTagTime"])
def test_an_image_that_a_run_may_be_about_to_start_stays(key: str) -> None:
    now = time.strftime("%Y-%m-%dT%H:%M:%S.123456789Z", time.gmtime(time.time() - 60))
    young = record(20, label="app")
    (young if key == "Created" else young["Metadata"])[key] = now
    assert chosen(young) == []
    assert chosen({**young, "Created": "", "Metadata": None}) == []


def test_an_image_is_kept_while_docker_would_remove_a_needed_one_along_with_it() -> None:
    needed = record(6, layers=("a", "b"))
    child = record(20, label="app", layers=("a", "b", "c"), Parent=image_id(30))
    sibling = record(21, label="app", layers=("a", "x"), Parent=image_id(31))
    assert chosen(needed, child, sibling) == [image_id(21)]


# --- folders --------------------------------------------------------------------------------------------------------


class Host:
    """A home with parts; everything in it was last used three days ago."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.parts = self.home / "parts"
        self.parts.mkdir(parents=True)
        self.lock = self.parts / ".lock"

    def part(self, name: str, kind: str = "", label: str = "", used: float = LONG_AGO, **mark: Any) -> Path:
        path = self.parts / name
        (path / "bin").mkdir(parents=True)
        (path / "bin" / "python").touch()
        if kind:
            keep.write_mark(path, {"kind": kind, "name": label or kind, **mark})
            os.utime(path / keep.MARK, (used, used))
        os.utime(path, (used, used))
        return path

    def remember(self, current: state.State, service: str = "app", home: Path | None = None) -> state.State:
        folder = (home or self.home) / service
        folder.mkdir(parents=True, exist_ok=True)
        state.save(folder, current)
        return current

    def prune(self, after: state.State | None = None, **more: Any) -> dict[str, list[str]]:
        options = {"runtime": "process", "stack_dir": str(self.home / "app"), "service": "app", **more}
        now = after or state.empty("app")
        return prune.prune(options, now, now)

    def left(self) -> set[str]:
        return {path.name for path in self.parts.iterdir() if not path.name.startswith(".lock")}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def process_release(host: Host, number: int) -> dict[str, Any]:
    return release(
        number,
        service_dir=str(host.parts / f"service-{KEY.format(number)}"),
        service_command=[str(host.parts / f"env-{KEY.format(number)}" / "bin" / "python"), "-m", "swift_service"],
    )


def with_releases(host: Host, *numbers: int) -> None:
    """A service and its environment for each number; the last is the newest."""
    for number in numbers:
        host.part(f"service-{KEY.format(number)}", "service", used=LONG_AGO + number)
        host.part(f"env-{KEY.format(number)}", "env", "service", used=LONG_AGO + number)


def test_a_host_without_parts_has_nothing_to_remove(tmp_path: Path) -> None:
    options = {"runtime": "process", "stack_dir": str(tmp_path / "home" / "app")}
    assert prune.prune(options, state.empty("app"), state.empty("app")) == {"removed": [], "problems": []}


def test_what_dropped_releases_were_made_of_goes_and_the_rest_stays(host: Host) -> None:
    with_releases(host, *range(1, 8))
    after = host.remember(deployed(*(process_release(host, number) for number in range(1, 7))))
    report = host.prune(after)
    assert report["problems"] == []
    assert sorted(word.partition(" ")[0] for word in report["removed"]) == [
        f"env-{KEY.format(1)}", f"service-{KEY.format(1)}", f"service-{KEY.format(7)}",
    ]  # fmt: skip
    # The newest environment is what the next run takes.
    kept = {f"{kind}-{KEY.format(number)}" for kind in ("env", "service") for number in range(2, 7)}
    assert host.left() == kept | {f"env-{KEY.format(7)}"}
    assert host.prune(after) == {"removed": [], "problems": []}


def test_the_state_after_the_switch_counts_even_before_it_is_on_disk(host: Host) -> None:
    with_releases(host, 1)
    assert host.prune(deployed(process_release(host, 1)))["removed"] == []


def test_samples_of_releases_that_are_in_no_slot_go(host: Host) -> None:
    after = host.remember(deployed(process_release(host, 1), process_release(host, 2)))
    ids = [slot["id"] for slot in after["slots"].values() if slot]
    path, now = host.home / "app" / samples.FILE_NAME, samples.Now(time.time(), time.monotonic())
    taken = {"at": now.at, "body": "up 1\n", "content_type": ""}
    kept = {"blue": ids[0], "green": "a release that is gone"}
    samples.keep(samples.Keeping(path, kept, 30.0, 60.0), [{"slot": slot, **taken} for slot in kept], now)
    host.prune(after)
    assert [one["release"] for one in json.loads(path.read_text())["samples"]] == [ids[0]]
    host.prune(state.empty("app"))
    assert not path.exists()


def test_what_another_service_below_the_home_needs_stays(host: Host) -> None:
    with_releases(host, 1, 2, 3)
    host.remember(deployed(process_release(host, 1)), "other")
    host.prune(host.remember(deployed(process_release(host, 3))))
    assert f"service-{KEY.format(1)}" in host.left()
    assert f"env-{KEY.format(1)}" in host.left()
    assert f"service-{KEY.format(2)}" not in host.left()


def test_a_state_that_cannot_be_read_keeps_everything_and_is_named(host: Host) -> None:
    with_releases(host, 1, 2)
    (host.home / "other").mkdir()
    (host.home / "other" / "state.json").write_text("{")
    report = host.prune()
    assert report["removed"] == []
    assert str(host.home / "other" / "state.json") in report["problems"][0]
    assert len(host.left()) == 4


def test_what_was_used_today_stays(host: Host) -> None:
    for number, name in enumerate(["service-{}", "env-{}"]):
        host.part(name.format(KEY.format(1)), ("service", "env")[number], "service", used=time.time() - DAY + 600)
        host.part(name.format(KEY.format(2)))
        os.utime(host.parts / name.format(KEY.format(2)), (time.time() - 600,) * 2)
    host.part(f"env-{KEY.format(9)}", "env", "service", used=time.time())
    assert host.prune() == {"removed": [], "problems": []}


def test_a_program_stays_while_it_is_the_last_used_of_its_kind(host: Host) -> None:
    for number, version in enumerate(("1.20.0", "1.21.0", "1.22.0")):
        host.part(f"opa-{version}", "opa", used=LONG_AGO + number)
        host.part(f"env-{KEY.format(number)}", "env", "tools", used=LONG_AGO + number)
    host.prune()
    assert host.left() == {"opa-1.22.0", f"env-{KEY.format(2)}"}


@pytest.fixture
def running(host: Host) -> Iterator[None]:
    """Two programs out of old folders: one named in its command alone, the other only running from there."""
    started = []
    for name in (f"env-{KEY.format(1)}", "opa-1.20.0"):
        path = host.part(name, *(("env", "tools") if name.startswith("env") else ("opa",)))
        words = [sys.executable, "-c", "input()", str(path)] if name.startswith("env") else ["cat"]
        started.append(subprocess.Popen(words, cwd=path if words == ["cat"] else None, stdin=subprocess.PIPE))
    yield
    for process in started:
        process.kill()
        process.communicate()


def test_a_program_stays_while_a_process_runs_from_it(host: Host, running: None) -> None:
    host.part(f"env-{KEY.format(2)}", "env", "tools", used=LONG_AGO + 1)
    host.part(f"env-{KEY.format(3)}", "env", "tools", used=LONG_AGO + 2)
    host.part("opa-1.22.0", "opa", used=LONG_AGO + 1)
    host.prune()
    assert host.left() == {f"env-{KEY.format(1)}", f"env-{KEY.format(3)}", "opa-1.20.0", "opa-1.22.0"}


def test_a_program_stays_while_a_stopped_stack_would_be_started_with_it(host: Host) -> None:
    old = host.part(f"env-{KEY.format(1)}", "env", "tools")
    host.part(f"env-{KEY.format(2)}", "env", "tools", used=LONG_AGO + 1)
    programs = host.home / "other" / "programs"
    programs.mkdir(parents=True)
    (programs / "nginx.json").write_text(json.dumps({"argv": [str(old / "lib" / "nginx"), "-p", "."]}))
    assert host.prune() == {"removed": [], "problems": []}


def test_a_service_that_stays_keeps_the_interpreter_it_was_unpacked_for(host: Host) -> None:
    with_releases(host, 1, 2)
    python = str(host.parts / f"env-{KEY.format(1)}" / "bin" / "python")
    service = host.part(f"service-{KEY.format(5)}", "service", python=python)
    entry = release(5, service_dir=str(service), service_command=["python3"])
    host.prune(deployed(entry))
    assert host.left() == {service.name, f"env-{KEY.format(1)}", f"env-{KEY.format(2)}"}


def test_unfinished_folders_go_when_they_are_old_and_strangers_never(host: Host, tmp_path: Path) -> None:
    gone = [f"env-{KEY.format(1)}", f"service-{KEY.format(1)}", ".service-abc123"]
    strangers = ["opa-1.0.0", "env-mine", "service-notes", "data"]
    for name in [*gone, *strangers]:
        host.part(name)
    outside = tmp_path / "outside"
    outside.mkdir()
    os.utime(outside, (LONG_AGO, LONG_AGO))
    (host.parts / f"service-{KEY.format(4)}").symlink_to(outside)
    report = host.prune()
    assert report["problems"] == []
    assert sorted(word.partition(" ")[0] for word in report["removed"]) == sorted(gone)
    assert host.left() == {*strangers, f"service-{KEY.format(4)}"}


def test_nothing_is_removed_while_another_run_installs(host: Host) -> None:
    with_releases(host, 1, 2)
    with keep.locked(host.lock, 1.0):
        started = time.monotonic()
        report = host.prune()
        assert time.monotonic() - started < 5
    assert report["removed"] == []
    assert str(host.lock) in report["problems"][0]
    assert len(host.left()) == 4
    assert len(host.prune()["removed"]) == 3


def test_what_a_run_takes_into_use_in_the_meantime_stays(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    with_releases(host, 1, 2)
    look = prune.names_in_use

    def used_meanwhile(names: set[str]) -> set[str]:
        keep.note_use(host.parts / f"service-{KEY.format(1)}")
        return look(names)

    monkeypatch.setattr(prune, "names_in_use", used_meanwhile)
    host.prune()
    assert host.left() == {f"service-{KEY.format(1)}", f"env-{KEY.format(2)}"}


def test_homes_that_share_their_parts_keep_what_the_other_one_needs(host: Host, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    host.parts.rename(shared)
    host.parts = shared
    with_releases(host, 1, 2, 3)
    other = tmp_path / "elsewhere"
    theirs = host.remember(deployed(process_release(host, 1)), home=other)
    options = {"runtime": "process", "stack_dir": str(other / "app"), "parts_dir": str(shared)}
    # The other home's own run is what makes it known.
    assert prune.prune(options, theirs, theirs, age=10 * DAY) == {"removed": [], "problems": []}
    host.prune(host.remember(deployed(process_release(host, 3))), parts_dir=str(shared))
    assert {f"service-{KEY.format(1)}", f"service-{KEY.format(3)}"} <= host.left()
    assert f"service-{KEY.format(2)}" not in host.left()


def test_what_cannot_be_removed_is_told_and_the_rest_goes(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    with_releases(host, 1, 2)
    stuck = host.parts / f"service-{KEY.format(1)}"
    # Root, who may run the tests, is refused nothing by permissions.
    real = shutil.rmtree

    def refuse(path: Path) -> None:
        if Path(path) == stuck:
            raise PermissionError(1, "Operation not permitted")
        real(path)

    monkeypatch.setattr(shutil, "rmtree", refuse)
    report = host.prune()
    assert report["problems"] == [f"{stuck} cannot be removed: Operation not permitted"]
    assert f"service-{KEY.format(2)} (service)" in report["removed"]
    # What is left of it is never taken for whole.
    assert keep.read_mark(stuck) is None


def test_no_time_removes_nothing(host: Host) -> None:
    with_releases(host, 1, 2)
    options = {"runtime": "process", "stack_dir": str(host.home / "app")}
    assert prune.prune(options, state.empty("app"), state.empty("app"), budget=0) == {"removed": [], "problems": []}
    assert len(host.left()) == 4
