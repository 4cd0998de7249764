"""Whose a stack is."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import ClassVar

import pytest

from swiftdeploy_target import names, ownership, state
from swiftdeploy_target.ownership import Owner, Thing

OURS = Owner("/srv/one", "shop")


def compose(project: str, folder: str) -> dict[str, str]:
    """Labels of a container that an earlier version made."""
    return {ownership.COMPOSE_PROJECT: project, ownership.COMPOSE_FOLDER: folder}


def test_no_two_stacks_share_a_name() -> None:
    services = ["a", "a-b", "a-opa", "b", "b-c", "c", "opa-a", "shop", "shop-opa", "swiftdeploy", "net", "net-a"]
    called = ["a", "a-b", "a_b", "a.b", "net", "net-a", "swiftdeploy", "swiftdeploy-a", "swiftdeploy-shop"]
    seen: dict[tuple[str, str], str] = {}
    for service in services:
        own = {("project", names.project(service)), ("project", names.policy_project(service))}
        own |= {
            ("container", names.container(names.project(service), program))
            for program in ("nginx", "blue", "green", "opa")
        }
        own |= {("network", names.network(name, service)) for name in called}
        own |= {("volume", names.volume(name, service)) for name in called}
        for name in own:
            assert seen.setdefault(name, service) == service, name
    for one, other in itertools.permutations(services, 2):
        assert names.policy_project(one) != names.project(other)


@pytest.mark.parametrize(
    ("labels", "whose"),
    [
        (names.labels("/srv/one", "shop"), OURS),
        (names.labels("/srv/two", "shop"), Owner("/srv/two", "shop")),
        (names.labels("/srv/one", "pay"), Owner("/srv/one", "pay")),
        ({names.HOME_LABEL: "/srv/one"}, None),
        (compose("swiftdeploy-shop", "/srv/one/shop/config"), OURS),
        (compose("swiftdeploy-shop-opa", "/srv/one/shop/opa"), OURS),
        # Somebody's own project in a folder that happens to be called like that.
        (compose("swiftdeploy-shop", "/home/ada/swiftdeploy-shop"), None),
        (compose("pay", "/srv/one/shop/config"), None),
        ({}, None),
        (None, None),
    ],
)
def test_a_mark_says_whose_a_thing_is(labels: dict[str, str] | None, whose: Owner | None) -> None:
    assert ownership.owner(labels) == whose


def test_a_home_is_the_same_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert ownership.owner(names.labels(f"{tmp_path}/link", "shop")) == ownership.of(tmp_path / "real" / "shop")


def test_what_is_ours_is_no_strangers() -> None:
    things = [Thing("container", "a", names.labels("/srv/one", "shop")), Thing("volume", "b", names.labels(*OURS))]
    assert ownership.strangers(things, OURS) == []


def test_a_stranger_is_named_with_what_to_do(tmp_path: Path) -> None:
    other = Owner(str(tmp_path), "shop")
    other.stack_dir.mkdir()
    told = {"home": other.home, "service": "shop", "checkout": "ada@control1 in /home/ada/shop"}
    state.save(other.stack_dir, {**state.empty("shop"), "owner": told})
    things = [
        Thing("container", "swiftdeploy-shop-nginx", names.labels(*other)),
        Thing("container", "swiftdeploy-shop-blue", names.labels(*other)),
        Thing("network", "net_shop", names.labels(*other)),
    ]
    assert ownership.strangers(things, OURS) == [
        f"this is the stack of service shop in {tmp_path} (last changed from ada@control1 in /home/ada/shop) "
        "and was left alone: containers swiftdeploy-shop-nginx swiftdeploy-shop-blue, network net_shop. "
        "Change services.name in the manifest, or run teardown.yml there."
    ]


def test_what_nobody_marked_is_somebodys_too() -> None:
    (said,) = ownership.strangers([Thing("container", "swiftdeploy-shop-nginx", {})], OURS)
    assert "not SwiftDeploy's" in said
    assert "container swiftdeploy-shop-nginx. Change services.name in the manifest, or remove it" in said


def test_of_a_stack_whose_folder_is_gone_the_commands_are_told() -> None:
    gone = Owner("/nonexistent/home", "shop")
    things = [Thing("container", "one", names.labels(*gone)), Thing("volume", "two", names.labels(*gone))]
    (said,) = ownership.strangers(things, OURS)
    assert "teardown.yml -e clean=data -e service=shop there" in said
    assert "docker container rm --force one; docker volume rm two" in said


def marked(stack_dir: Path, owner: Owner | None) -> state.State:
    stack_dir.mkdir(parents=True, exist_ok=True)
    said = owner and {**owner._asdict(), "checkout": "somebody"}
    state.save(stack_dir, {**state.empty(stack_dir.name), "owner": said})
    return state.load(stack_dir, stack_dir.name)


def test_a_copied_folder_is_refused_and_a_moved_one_is_not(tmp_path: Path) -> None:
    first, second = ownership.of(tmp_path / "one" / "shop"), ownership.of(tmp_path / "two" / "shop")
    assert ownership.copied(marked(first.stack_dir, first), first) is None
    assert ownership.copied(marked(second.stack_dir, None), second) is None
    remembered = marked(second.stack_dir, first)
    assert f"is of the stack of service shop in {first.home}" in str(ownership.copied(remembered, second))
    (first.stack_dir / state.FILE_NAME).unlink()
    assert ownership.copied(remembered, second) is None


class TestVolumesOfAnEarlierVersion:
    ENGINE: ClassVar = {
        "logs": compose("swiftdeploy-shop", ""),
        "others": compose("swiftdeploy-pay", ""),
        "marked": {**compose("swiftdeploy-shop", ""), **names.labels("/srv/one", "shop")},
        "mine": {},
    }

    @pytest.fixture(autouse=True)
    def engine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            ownership, "labels_of", lambda _kind, wanted: {n: self.ENGINE[n] for n in wanted if n in self.ENGINE}
        )

    def remembered(self, *volumes: str, owner: Owner | None = None) -> state.State:
        releases = [{"id": name, "spec": {"log_volume": name}} for name in volumes]
        return {**state.empty("shop"), "runtime": "docker", "releases": releases, "owner": owner}

    def test_what_the_stack_had_made_keeps_its_name(self, tmp_path: Path) -> None:
        ours = ownership.of(tmp_path / "shop")
        assert ownership.kept_volumes(self.remembered("logs", "others", "marked", "mine", "none"), ours) == ["logs"]
        # A stack that has its mark, or none at all, did not make it.
        assert ownership.kept_volumes(self.remembered("logs", owner=ours), ours) == []
        assert ownership.kept_volumes(state.empty("shop"), ours) == []

    def test_once_written_down_it_stays_so(self, tmp_path: Path) -> None:
        ours = ownership.of(tmp_path / "shop")
        ours.stack_dir.mkdir()
        ownership.note_kept([], ours.stack_dir)
        assert list(ours.stack_dir.iterdir()) == []
        ownership.note_kept(["logs"], ours.stack_dir)
        assert ownership.kept_volumes(state.empty("shop"), ours) == ["logs"]
        assert ownership.kept_volumes(self.remembered("others", owner=ours), ours) == ["logs"]

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"volumes": 3}', "nonsense"])
    def test_a_note_that_says_nothing_is_an_error(self, tmp_path: Path, text: str) -> None:
        ours = ownership.of(tmp_path / "shop")
        ours.stack_dir.mkdir()
        (ours.stack_dir / ownership.DATA_NAME).write_text(text)
        with pytest.raises(state.StateError, match=r"data\.json does not say which volumes"):
            ownership.kept_volumes(state.empty("shop"), ours)


def test_the_note_is_plain_json(tmp_path: Path) -> None:
    ownership.note_kept(["a", "b"], tmp_path)
    assert json.loads((tmp_path / "data.json").read_text()) == {"volumes": ["a", "b"]}
