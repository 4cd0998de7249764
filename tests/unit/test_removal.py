"""What a teardown takes away, and what it leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from swiftdeploy import removal as words
from swiftdeploy_target import lock, ownership, release_log, removal, runtime, state


@pytest.mark.parametrize(
    ("clean", "given", "removes"),
    [
        ("", "", (False, False)),
        ("false", "", (False, False)),
        (False, "", (False, False)),
        (True, "", (True, False)),
        ("True", "shop", (True, False)),
        ("yes", "", (True, False)),
        ("data", "shop", (True, True)),
    ],
)
def test_what_is_asked_for_is_removed(clean: object, given: str, removes: tuple[bool, bool]) -> None:
    found = words.asked(clean, given, "shop", "manifest.yaml")
    assert ((found["clean"], found["data"]), found["problem"]) == (removes, "")


@pytest.mark.parametrize(
    ("clean", "given", "why"),
    [
        ("data", "", "so it is asked for by name"),
        ("data", "  ", "so it is asked for by name"),
        ("data", "pay", "service is pay, and manifest.yaml is the manifest of shop"),
        ("data", "SHOP", "service is SHOP"),
        ("data", "shop,pay", "service is shop,pay"),
        ("true", "pay", "service is pay"),
        ("", "pay", "service is pay"),
        ("all", "shop", "clean is all, allowed are true"),
        ("volumes", "", "clean is volumes"),
    ],
)
def test_data_goes_by_the_right_name_alone(clean: str, given: str, why: str) -> None:
    problem = words.asked(clean, given, "shop", "manifest.yaml")["problem"]
    assert why in problem
    assert "nothing was touched" in problem


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with two services of the process runtime, of which nothing runs."""
    monkeypatch.setattr(removal, "detect_docker", lambda: runtime.Engine(False, "none"))
    monkeypatch.setattr(removal, "marked_processes", lambda _folder: [])
    for service in ("shop", "shop-opa"):
        folder = tmp_path / service
        for path in ("logs/service.log", "opa/decisions/log/decisions.jsonl", "opa/config.yaml", "programs/blue.json"):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(service)
        state.save(folder, {**state.empty(service), "runtime": "process"})
        release_log.append(folder, release_log.entry("live", None, None))
    for shared in removal.SHARED:
        (tmp_path / shared).mkdir()
    return tmp_path


def options(home: Path, service: str = "shop") -> dict[str, Any]:
    return {
        "stack_dir": str(home / service),
        "service": service,
        "runtime": "process",
        "names": {"kept_volumes": []},
    }


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def take(home: Path, *, clean: bool = False, data: bool = False) -> dict[str, list[str]]:
    """As the module does it."""
    stack_dir = home / "shop"
    shared = removal.shared_of(stack_dir) if clean and not removal.neighbours(stack_dir) else []
    found = removal.find(options(home))
    removal.remove(found, options(home), data=data, shared=shared)
    return removal.words(found, stack_dir, data=data, shared=shared)


def test_a_neighbour_and_what_it_uses_are_left(home: Path) -> None:
    before = files(home / "shop-opa")
    (home / "shop" / lock.FILE_NAME).write_text("{}")
    assert removal.neighbours(home / "shop") == ["service shop-opa"]
    take(home, clean=True, data=True)
    assert not (home / "shop").exists()
    assert files(home / "shop-opa") == before
    assert (home / "parts").is_dir()
    assert files(home / release_log.FOLDER) == {"shop-opa.jsonl"}


def test_the_last_one_takes_the_programs_with_it(home: Path) -> None:
    (home / "shop-opa" / state.FILE_NAME).unlink()
    (home / "shop-opa" / "programs" / "blue.json").unlink()
    (home / "shop-opa" / "programs").rmdir()
    # It is about to be deployed for the first time.
    (home / "shop-opa" / lock.FILE_NAME).write_text("{}")
    take(home, clean=True)
    assert (home / "parts").is_dir()
    (home / "shop-opa" / lock.FILE_NAME).unlink()
    take(home, clean=True)
    assert not (home / "parts").exists()
    assert not (home / ".incoming").exists()


def test_a_home_elsewhere_that_uses_the_programs_keeps_them(
    home: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    (home / "parts" / removal.HOMES).mkdir()
    (home / "parts" / removal.HOMES / "0123").write_text(str(other))
    assert removal.neighbours(home / "shop") == ["service shop-opa"]
    (other / "pay").mkdir()
    state.save(other / "pay", state.empty("pay"))
    assert removal.neighbours(home / "shop") == ["service shop-opa", f"home {other}"]


def test_data_stays_until_it_is_asked_for(home: Path) -> None:
    data = {"logs/service.log", "opa/decisions/log/decisions.jsonl"}
    told = take(home)
    assert told["removed"] == [f"files of {home}/shop"]
    assert told["kept"] == [
        f"{home}/shop/logs",
        f"{home}/shop/opa/decisions",
        f"{home}/.log/shop.jsonl",
    ]
    assert files(home / "shop") == data
    again = take(home, clean=True)
    assert (again["removed"], again["kept"]) == ([], told["kept"])
    assert files(home / "shop") == data
    gone = take(home, clean=True, data=True)
    assert (gone["removed"], gone["kept"]) == (told["kept"], [])
    assert not (home / "shop").exists()
    assert take(home, clean=True, data=True) == {"removed": [], "kept": []}


def test_a_lock_is_held_until_the_run_gives_it_back(home: Path) -> None:
    (home / "shop" / lock.FILE_NAME).write_text("{}")
    take(home)
    assert (home / "shop" / lock.FILE_NAME).exists()


class TestAStackInContainers:
    NAMELESS = "ab" * 32

    @pytest.fixture(autouse=True)
    def engine(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home = home
        self.asked: list[tuple[str, ...]] = []
        found = removal.Found(["swiftdeploy-shop-nginx"], ["net_shop"], ["logs_shop", self.NAMELESS], False, [], [])
        monkeypatch.setattr(removal, "find", lambda _options: found)
        monkeypatch.setattr(removal, "_docker", lambda *words, **_more: self.asked.append(words) or "")

    def test_its_volumes_stay_and_a_nameless_one_is_noted(self) -> None:
        told = take(self.home)
        assert told["kept"] == ["volume logs_shop", f"volume {self.NAMELESS}"]
        assert not [words for words in self.asked if words[0] == "volume"]
        noted = json.loads((self.home / "shop" / ownership.DATA_NAME).read_text())
        assert noted == {"volumes": [self.NAMELESS]}

    def test_its_volumes_go_when_they_are_asked_for(self) -> None:
        take(self.home, data=True)
        assert self.asked[-1] == ("volume", "rm", "logs_shop", self.NAMELESS)
        assert not (self.home / "shop" / ownership.DATA_NAME).exists()
