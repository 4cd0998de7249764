"""Images as files: found or saved once on the controller, sent in parts, checked where they arrive."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swiftdeploy import image_archives
from swiftdeploy.image_archives import Archive, ArchiveError, ConnectionBrokenError
from swiftdeploy_target import images
from swiftdeploy_target.command import Finished

ID = "sha256:" + "1" * 64
OTHER_ID = "sha256:" + "2" * 64
MANIFEST_ID = "sha256:" + "3" * 64


def save(path: Path, *tags: str, image_id: str = ID, oci: bool = False) -> Path:
    """An archive as docker save writes it: of a classic engine, or with the layout of newer ones."""
    digest = image_id.removeprefix("sha256:")
    config = f"blobs/sha256/{digest}" if oci else f"{digest}.json"
    members = {"layer": b"x" * 3000, "manifest.json": json.dumps([{"Config": config, "RepoTags": list(tags)}]).encode()}
    if oci:
        members["index.json"] = json.dumps({"manifests": [{"digest": MANIFEST_ID}]}).encode()
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


class ControllersEngine:
    """An engine that has ``present`` ({name: id}), or does not answer; remembers what was pulled."""

    def __init__(self, present: dict[str, str] | None, hub: dict[str, str] | None = None) -> None:
        self.present, self.hub, self.pulled = present, hub or {}, list[str]()

    def inspect(self, name: str) -> dict[str, Any] | None:
        if self.present is None:
            raise images.EngineError("the Docker engine does not answer")
        return {"id": self.present[name], "label": None} if name in self.present else None

    def pull(self, name: str) -> Finished:
        self.pulled.append(name)
        if name not in self.hub:
            return Finished(1, "", "Error response from daemon: manifest unknown")
        assert self.present is not None
        self.present[name] = self.hub[name]
        return Finished(0, "", "")


def find(name: str, folder: Path, engine: ControllersEngine, **given: Any) -> Archive:
    return image_archives.find(name, folder, engine, **given)  # type: ignore[arg-type]


def test_the_same_image_is_the_same_file_and_another_is_another() -> None:
    assert image_archives.file_name("reg.acme.org:5000/shop:2", ID) == "reg.acme.org_5000_shop_2-111111111111.tar"
    assert image_archives.file_name("nginx", ID) == image_archives.file_name("nginx:latest", ID)
    assert image_archives.file_name("nginx", ID) != image_archives.file_name("nginx", OTHER_ID)


def test_what_the_controller_has_is_sent_and_nothing_is_pulled(tmp_path: Path) -> None:
    engine = ControllersEngine({"shop:2": ID})
    found = find("shop:2", tmp_path, engine)
    assert (found.path, found.ids) == (tmp_path / "shop_2-111111111111.tar", {ID})
    assert not engine.pulled


def test_what_the_controller_lacks_is_pulled_there_once_for_all_hosts(tmp_path: Path) -> None:
    engine = ControllersEngine({}, {"shop:2": ID})
    assert find("shop:2", tmp_path, engine).ids == {ID}
    assert find("shop:2", tmp_path, engine).ids == {ID}
    assert engine.pulled == ["shop:2"]


def test_a_dry_run_pulls_nothing(tmp_path: Path) -> None:
    engine = ControllersEngine({}, {"shop:2": ID})
    assert not find("shop:2", tmp_path, engine, pull=False).ids
    assert not engine.pulled


def test_a_controller_without_an_engine_sends_what_was_put_there(tmp_path: Path) -> None:
    (tmp_path / "note.tar").write_text("not an archive")
    save(tmp_path / "other.tar", "other:1")
    path = save(tmp_path / "from-a-stick.tar", "shop:2", oci=True)
    found = find("docker.io/library/shop:2", tmp_path, ControllersEngine(None))
    assert found.path == path
    assert found.ids == {ID, MANIFEST_ID}, "an engine with containerd's store calls it by its manifest"


def test_the_newest_of_two_archives_counts(tmp_path: Path) -> None:
    os.utime(save(tmp_path / "a.tar", "shop:2"), (1000, 1000))
    os.utime(save(tmp_path / "b.tar", "shop:2", image_id=OTHER_ID), (2000, 2000))
    found = image_archives.offered("shop:2", tmp_path)
    assert found is not None
    assert found.ids == {OTHER_ID}
    assert image_archives.offered("shop:3", tmp_path) is None
    assert image_archives.offered("shop:2", tmp_path / "none") is None


@pytest.mark.parametrize(
    ("engine", "why"),
    [
        (ControllersEngine({}), "its engine has no such image and cannot pull it (manifest unknown)"),
        (ControllersEngine(None), "it has no engine to ask (the Docker engine does not answer)"),
    ],
)
def test_what_cannot_be_had_says_why_and_where_to_put_it(tmp_path: Path, engine: ControllersEngine, why: str) -> None:
    with pytest.raises(ArchiveError) as raised:
        find("shop:2", tmp_path, engine)
    assert why in str(raised.value)
    assert f"docker save --output FILE.tar shop:2) into {tmp_path}" in str(raised.value)


def test_a_name_with_a_digest_is_not_sent(tmp_path: Path) -> None:
    name = f"shop@{ID}"
    with pytest.raises(ArchiveError, match="can only be pulled"):
        find(name, tmp_path, ControllersEngine({name: ID}))
    assert image_archives.offered(name, tmp_path) is None


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Puts a program ``docker`` that is this shell script on the PATH; each call of it leaves a line in a file."""
    calls = tmp_path / "calls"

    def place(script: str) -> Path:
        program = tmp_path / "bin" / "docker"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n{script}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        return calls

    return place


def test_an_archive_is_saved_once_whole_and_with_its_checksum(tmp_path: Path, docker: Callable[[str], Path]) -> None:
    example = save(tmp_path / "example", "shop:2")
    calls = docker(f'cp {example} "$3"')
    wanted = Archive("shop:2", tmp_path / "cache" / "shop.tar", frozenset({ID}))
    made, digest = image_archives.ensure(wanted)
    assert image_archives.ensure(wanted) == (made, digest)
    assert digest == hashlib.sha256(example.read_bytes()).hexdigest()
    assert len(calls.read_text().splitlines()) == 1
    checked = subprocess.run(["sha256sum", "-c", "shop.tar.sha256"], cwd=made.path.parent, check=False)
    assert checked.returncode == 0, "a person can check it with the usual program"
    # Another file of that name is another archive.
    save(made.path, "shop:2", image_id=OTHER_ID)
    assert image_archives.ensure(wanted)[1] != digest


def test_the_folder_of_archives_does_not_grow_for_ever(tmp_path: Path, docker: Callable[[str], Path]) -> None:
    docker(f'cp {save(tmp_path / "example", "shop:2")} "$3"')
    folder = tmp_path / "cache"
    folder.mkdir()
    theirs = save(folder / "shop_2-from-a-stick.tar", "shop:2")
    made = []
    for number in range(5):
        image = f"sha256:{number:064x}"[:7] + f"{number:012d}" + "0" * 52
        path = folder / image_archives.file_name("shop:2", image)
        made.append(image_archives.ensure(Archive("shop:2", path, frozenset({image})))[0].path)
        os.utime(path, (number, number))
    left = sorted(path.name for path in folder.glob("*.tar"))
    assert left == sorted([theirs.name, *(path.name for path in made[-image_archives.KEPT :])])
    assert len(list(folder.iterdir())) == 1 + 3 * image_archives.KEPT


def test_hosts_at_the_same_time_share_one_archive(tmp_path: Path, docker: Callable[[str], Path]) -> None:
    example = save(tmp_path / "example", "shop:2")
    calls = docker(f'cp {example} "$3"')
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            image_archives.ensure(Archive("shop:2", tmp_path / "shop.tar", frozenset({ID})))
            os._exit(0)
        children.append(child)
    assert {os.waitpid(child, 0)[1] for child in children} == {0}
    assert len(calls.read_text().splitlines()) == 1


def test_an_archive_that_cannot_be_saved_leaves_nothing_behind(tmp_path: Path, docker: Callable[[str], Path]) -> None:
    docker('echo half > "$3"; echo "Error response from daemon: no space left on device" >&2; exit 1')
    folder = tmp_path / "cache"
    with pytest.raises(ArchiveError, match="cannot save shop:2: no space left on device"):
        image_archives.ensure(Archive("shop:2", folder / "shop.tar", frozenset({ID})))
    assert [path.name for path in folder.iterdir()] == [".shop.tar.lock"]


class Line:
    """A host behind a line: runs the commands in a real shell; ``breaks`` tells of which calls the line breaks.

    A break is before the command is run, or after it has run without an answer.
    """

    def __init__(self, breaks: Callable[[int], str | None] = lambda _call: None) -> None:
        self.breaks, self.calls, self.sent = breaks, 0, 0

    def __call__(self, command: str, data: bytes | None) -> tuple[int, str, str]:
        self.calls += 1
        broken = self.breaks(self.calls) if data is not None else None
        if broken == "before":
            raise ConnectionBrokenError("Connection reset by peer")
        done = subprocess.run(["/bin/sh", "-c", command], input=data or b"", capture_output=True, check=False)
        self.sent += len(data or b"")
        if broken == "after":
            raise ConnectionBrokenError("Connection reset by peer")
        return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_archives, "PART", 1000)


def sent(path: Path, folder: Path, line: Line) -> Path:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Path(image_archives.send(path, digest, str(folder), line))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "archive.tar"
    path.write_bytes(os.urandom(5500))
    return path


@pytest.mark.usefixtures("small_parts")
def test_a_file_arrives_whole_and_for_its_owner_alone(archive: Path, tmp_path: Path) -> None:
    line = Line()
    folder = tmp_path / "a b 'c"
    there = sent(archive, folder, line)
    assert there.read_bytes() == archive.read_bytes()
    assert (folder.stat().st_mode & 0o777, there.stat().st_mode & 0o777) == (0o700, 0o600)
    assert line.sent == 5500
    sent(archive, folder, line)
    assert line.sent == 5500, "what is there is not sent again"


@pytest.mark.usefixtures("small_parts")
def test_what_arrived_before_the_line_broke_is_not_sent_again(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"the connection broke 3 times .* 2000 of 5500 bytes are there") as raised:
        sent(archive, tmp_path / "in", Line(lambda call: "before" if call > 3 else None))
    assert "goes on from there" in str(raised.value)
    line = Line()
    assert sent(archive, tmp_path / "in", line).read_bytes() == archive.read_bytes()
    assert line.sent == 3500


@pytest.mark.usefixtures("small_parts")
def test_a_part_that_arrives_twice_or_in_half_does_no_harm(archive: Path, tmp_path: Path) -> None:
    line = Line(lambda call: "after" if call in (3, 5, 6) else None)
    there = sent(archive, tmp_path / "in", line)
    assert there.read_bytes() == archive.read_bytes()
    # A part that broke off in its middle.
    with there.open("r+b") as stream:
        stream.truncate(3333)
    assert sent(archive, tmp_path / "in", Line()).read_bytes() == archive.read_bytes()


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from([None, "before", "after"]), max_size=30), st.integers(0, 4200))
def test_whatever_breaks_and_when_the_file_arrives_or_it_is_said(
    tmp_path_factory: pytest.TempPathFactory, breaks: list[str | None], size: int
) -> None:
    folder = tmp_path_factory.mktemp("line")
    path = folder / "archive.tar"
    path.write_bytes(os.urandom(size))
    line = Line(lambda call: breaks[call - 1] if call <= len(breaks) else None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_archives, "PART", 1000)
        try:
            there = sent(path, folder / "in", line)
        except ArchiveError as error:
            assert "the connection broke 3 times" in str(error)
        else:
            assert there.read_bytes() == path.read_bytes()


@pytest.mark.usefixtures("small_parts")
def test_a_host_that_cannot_take_it_says_so(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArchiveError, match=r"cannot be written on the host: .*file"):
        sent(archive, tmp_path / "file" / "in", Line())


@pytest.mark.usefixtures("small_parts")
def test_a_longer_file_of_that_name_is_begun_anew(archive: Path, tmp_path: Path) -> None:
    there = sent(archive, tmp_path / "in", Line())
    there.write_bytes(archive.read_bytes() + b"more")
    assert sent(archive, tmp_path / "in", Line()).read_bytes() == archive.read_bytes()


# ------------------------------------------------------------------------------------------- on the host


class HostsEngine:
    """The host's engine; what an archive holds is in it once that was loaded."""

    def __init__(self, present: dict[str, str], holds: dict[str, str] | None = None, complaint: str = "") -> None:
        self.present, self.holds, self.complaint = present, holds or {}, complaint

    def inspect(self, name: str) -> dict[str, Any] | None:
        return {"id": self.present[name], "label": None} if name in self.present else None

    def pull(self, _name: str) -> Finished:
        return Finished(1, "", "manifest unknown")

    def load(self, _path: Path) -> Finished:
        self.present.update(self.holds)
        return Finished(1 if self.complaint else 0, "", self.complaint)


def settle(
    engine: HostsEngine, archive: dict[str, Any], source: str = "archive", check: bool = False
) -> images.Outcome:
    host = images.Host(engine, source, check, {})  # type: ignore[arg-type]
    recipe = {"inputs": "x", "why_not": None, "context": None, "archive": archive}
    return host.settle({"service": "shop:2"}, {"service": recipe}, {})


def offer(path: Path | None = None, digest: str | None = None, **changes: Any) -> dict[str, Any]:
    return {"ids": [ID], "why_not": None, "path": None if path is None else str(path), "sha256": digest, **changes}


def test_an_image_that_is_there_is_not_asked_for() -> None:
    outcome = settle(HostsEngine({"shop:2": ID}), offer())
    assert (outcome.images["service"]["source"], outcome.awaited) == ("present", [])


def test_another_image_of_that_name_is_replaced() -> None:
    outcome = settle(HostsEngine({"shop:2": OTHER_ID}), offer())
    assert (outcome.images, outcome.awaited) == ({}, ["service"])


def test_what_the_host_has_is_enough_where_the_controller_has_nothing() -> None:
    outcome = settle(HostsEngine({"shop:2": OTHER_ID}), offer(ids=[], why_not="the controller cannot save it"))
    assert outcome.images["service"]["source"] == "present"
    outcome = settle(HostsEngine({}), offer(ids=[], why_not="the controller cannot save it"))
    assert outcome.attempts["service"] == [{"how": "archive", "why": "the controller cannot save it"}]
    assert not outcome.awaited


def test_a_dry_run_says_what_would_be_sent() -> None:
    outcome = settle(HostsEngine({}), offer(), check=True)
    assert outcome.images["service"] == {"name": "shop:2", "id": None, "source": "sent", "changed": True}


def test_auto_takes_an_archive_that_lies_there_in_place_of_building() -> None:
    outcome = settle(HostsEngine({}), offer(), source="auto")
    assert (outcome.awaited, outcome.needed) == (["service"], [])
    assert outcome.attempts["service"] == [{"how": "pull", "why": "manifest unknown"}]


@pytest.fixture
def arrived(tmp_path: Path) -> tuple[Path, str]:
    path = save(tmp_path / "arrived.tar", "shop:2")
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_arrived_is_loaded_checked_and_removed(arrived: tuple[Path, str]) -> None:
    outcome = settle(HostsEngine({}, {"shop:2": ID}), offer(*arrived))
    assert outcome.images["service"] == {"name": "shop:2", "id": ID, "source": "sent", "changed": True}
    assert not arrived[0].exists()


def test_a_file_that_was_changed_on_its_way_is_never_loaded(arrived: tuple[Path, str]) -> None:
    engine = HostsEngine({}, {"shop:2": ID})
    outcome = settle(engine, offer(arrived[0], "0" * 64))
    assert "arrived with another SHA-256" in outcome.attempts["service"][0]["why"]
    assert not engine.present
    assert not arrived[0].exists(), "the next run sends it anew"


@pytest.mark.parametrize(
    ("engine", "words", "stays"),
    [
        (HostsEngine({}, complaint="no space left on device"), "docker load failed: no space left on device", True),
        (HostsEngine({}, {"shop:1": ID}), "it holds no image shop:2", False),
        (HostsEngine({}, {"shop:2": OTHER_ID}), f"shop:2 is {OTHER_ID} then, not {ID}", False),
    ],
)
def test_what_is_not_the_image_after_all_is_told(
    arrived: tuple[Path, str], engine: HostsEngine, words: str, stays: bool
) -> None:
    outcome = settle(engine, offer(*arrived))
    assert words in outcome.attempts["service"][0]["why"]
    assert arrived[0].exists() is stays


def test_a_login_is_docker_s_own_and_names_the_registry_as_docker_does() -> None:
    word = images.login_words("ada", "s3cret")
    assert "s3cret" not in word
    assert json.loads(images.credentials("reg.acme.org", word)) == {"auths": {"reg.acme.org": {"auth": word}}}
    assert list(json.loads(images.credentials("docker.io", word))["auths"]) == ["https://index.docker.io/v1/"]


def test_a_password_is_in_no_command_line(docker: Callable[[str], Path], tmp_path: Path) -> None:
    calls = docker("exit 1")
    (tmp_path / "config.json").write_text(images.credentials("reg.acme.org", images.login_words("ada", "s3cret")))
    images.Engine(5, 5, 5, str(tmp_path)).pull("reg.acme.org/shop:2")
    assert calls.read_text() == f"--config {tmp_path} pull reg.acme.org/shop:2\n"
