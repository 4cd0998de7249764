"""The controller's half of swiftdeploy_images: what it sends to the host's half, and what it never does."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

from support.plugin import load
from support.workspace import REPOSITORY
from unit.test_image_archives import ID, save

plugin = load("action_plugins", "swiftdeploy_images")


class Controller:
    """The plugin with a host whose module answers as ``answers`` say and whose shell is this machine's."""

    def __init__(self, folder: Path, answers: list[dict[str, Any]]) -> None:
        self.asked: list[dict[str, Any]] = []
        self.breaks = 0
        self.folder = folder
        (folder / "archives").mkdir()
        action = plugin.ActionModule.__new__(plugin.ActionModule)
        action._task = SimpleNamespace(check_mode=False, args={})
        action._connection = SimpleNamespace(reset=lambda: None)
        action._make_tmp_path = lambda: str(folder / "tmp")
        action._remove_tmp_path = action._fixup_perms2 = lambda *_words, **_more: None
        action._remote_expand_user = lambda path: path
        action._low_level_execute_command = self.shell
        action._execute_module = lambda module_args, **_more: (
            self.asked.append(module_args) or answers[len(self.asked) - 1]
        )
        self.action = action

    def shell(self, command: str, in_data: bytes | None = None) -> dict[str, Any]:
        if in_data is not None and self.breaks:
            self.breaks -= 1
            raise AnsibleConnectionFailure("Broken pipe")
        done = subprocess.run(["/bin/sh", "-c", command], input=in_data or b"", capture_output=True, check=False)
        return {"rc": done.returncode, "stdout": done.stdout.decode(), "stderr": done.stderr.decode()}

    def run(self, check: bool = False, **arguments: Any) -> dict[str, Any]:
        self.action._task.check_mode = check
        self.action._task.args = {
            "images": {"service": "shop:2"},
            "source": "auto",
            "archive_dir": str(self.folder / "archives"),
            "incoming_dir": str(self.folder / "incoming"),
            "dockerfiles": str(REPOSITORY / "roles" / "images" / "files"),
            "service_context": str(REPOSITORY / "service"),
            **arguments,
        }
        result: dict[str, Any] = self.action.run(None, {})
        return result


def answer(awaited: bool, **images: Any) -> dict[str, Any]:
    return {
        "images": images,
        "needed": [],
        "later": [],
        "awaited": ["service"] if awaited else [],
        "attempts": {"service": []} if awaited else {},
        "out_of_reach": {},
        "architecture": "amd64",
        "changed": bool(images),
    }


@pytest.fixture
def controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Controller:
    monkeypatch.setattr(ActionBase, "run", lambda *_words, **_more: {})
    sent = {"name": "shop:2", "id": ID, "source": "sent", "changed": True}
    made = Controller(tmp_path, [answer(True), answer(False, service=sent)])
    save(tmp_path / "archives" / "shop.tar", "shop:2")
    return made


@pytest.mark.parametrize("breaks", [0, 2])
def test_an_archive_that_the_host_awaits_is_there_when_it_is_asked_again(controller: Controller, breaks: int) -> None:
    controller.breaks = breaks
    result = controller.run()
    assert result["images"]["service"]["source"] == "sent"
    first, second = (asked["recipes"]["service"]["archive"] for asked in controller.asked)
    assert first == {"ids": [ID], "why_not": None, "path": None, "sha256": None}
    arrived = Path(second["path"]).read_bytes()
    assert hashlib.sha256(arrived).hexdigest() == second["sha256"]
    assert arrived == (controller.folder / "archives" / "shop.tar").read_bytes()


def test_a_connection_that_stays_broken_is_a_reason_and_no_traceback(controller: Controller) -> None:
    controller.breaks = 99
    controller.run()
    archive = controller.asked[1]["recipes"]["service"]["archive"]
    assert archive["path"] is None
    assert "the connection broke 3 times" in archive["why_not"]


def test_a_dry_run_sends_nothing(controller: Controller) -> None:
    controller.run(check=True)
    assert len(controller.asked) == 1
    assert not (controller.folder / "incoming").exists()


LOGIN = {"registry": "docker.io", "username": "SHOP_USER", "password": "SHOP_PASSWORD"}


def test_a_login_is_taken_from_the_environment(controller: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_USER", "ada")
    monkeypatch.setenv("SHOP_PASSWORD", "s3cret")
    controller.run(login=LOGIN)
    assert controller.asked[0]["login"] == {"registry": "docker.io", "auth": "YWRhOnMzY3JldA=="}
    assert "s3cret" not in str(controller.asked)


def test_a_login_goes_nowhere_where_no_image_comes_from_that_registry(controller: Controller) -> None:
    controller.run(login={**LOGIN, "registry": "registry.example.org"})
    assert "login" not in controller.asked[0]


def test_a_login_that_is_not_set_is_named(controller: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_USER", "ada")
    monkeypatch.delenv("SHOP_PASSWORD", raising=False)
    with pytest.raises(
        AnsibleActionFail, match="names SHOP_PASSWORD, which the environment of the controller does not"
    ):
        controller.run(login=LOGIN)
    assert controller.asked == []


def inputs() -> str:
    """What the bundled service would be built from now."""
    parts = plugin.image_recipes.Parts(
        dockerfiles=REPOSITORY / "roles" / "images" / "files",
        service=REPOSITORY / "service",
        opa_binary=None,
        bundled_repository="swift-deploy-1-node",
        source="auto",
        opa_later=False,
    )
    return str(plugin.image_recipes.recipes(parts, {"service": OURS})["service"]["inputs"])


OURS = "swift-deploy-1-node:latest"


@pytest.mark.parametrize(
    ("label", "asks"), [(inputs(), 0), (None, 0), ("of-another-service", 1)], ids=["built", "pulled", "outdated"]
)
def test_a_host_that_was_seen_to_have_the_images_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, label: Any, asks: int
) -> None:
    monkeypatch.setattr(ActionBase, "run", lambda *_words, **_more: {})
    controller = Controller(tmp_path, [answer(False)])
    names = {"service": OURS, "nginx": "nginx:1.29"}
    seen = {OURS: {"id": "sha256:1", "label": label}, "nginx:1.29": {"id": "sha256:2", "label": None}}
    result = controller.run(images=names, archive_dir="", seen=seen)
    assert len(controller.asked) == asks
    if not asks:
        assert not result["changed"]
        assert result["images"]["service"] == {"name": OURS, "id": "sha256:1", "source": "present", "changed": False}


def test_a_host_of_which_one_image_was_not_seen_is_asked(controller: Controller) -> None:
    seen = {"shop:2": {"id": "sha256:1", "label": None}}
    controller.run(images={"service": "shop:2", "nginx": "nginx:1.29"}, seen=seen)
    assert controller.asked
    assert "seen" not in controller.asked[0]


@pytest.mark.parametrize(("found", "asks"), [(ID, False), ("sha256:other", True)])
def test_an_image_that_is_another_than_the_archives_is_sent(controller: Controller, found: str, asks: bool) -> None:
    controller.run(source="archive", seen={"shop:2": {"id": found, "label": None}})
    assert bool(controller.asked) is asks
