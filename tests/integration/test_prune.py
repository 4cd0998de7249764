"""Removing old images from the real engine: what goes, and what docker or another stack keeps."""

from __future__ import annotations

import io
import json
import secrets
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.workspace import REPOSITORY
from swiftdeploy_target import prune, state
from swiftdeploy_target.images import LABEL, REPOSITORY_LABEL, Engine

pytestmark = pytest.mark.docker


def docker(*words: str, data: bytes = b"") -> str:
    done = subprocess.run(["docker", *words], input=data, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


@pytest.fixture(scope="module", autouse=True)
def engine() -> None:
    subprocess.run([REPOSITORY / "tests" / "engine" / "up.sh"], timeout=600, check=True)


class Host:
    """A home of one service with images of its own; nothing here shares a name with another test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.name = f"sdtest-{secrets.token_hex(4)}"
        self.repository = f"{self.name}/app"
        self.images: list[str] = []
        self.containers: list[str] = []
        self.options = {
            "runtime": "docker",
            "stack_dir": str(self.home / self.name),
            "service": self.name,
            "nginx_image": f"{self.name}/nginx:1",
        }

    def image(self, *tags: str, repository: str | None = None) -> str:
        """An empty image; with ``repository`` it looks as if it had been built here. Its id."""
        labels = {LABEL: "x", REPOSITORY_LABEL: repository} if repository else {}
        changes = [word for key, value in labels.items() for word in ("--change", f"LABEL {key}={value}")]
        # Told apart by a label, so that no two are one.
        changes += ["--change", f"LABEL test={secrets.token_hex(8)}"]
        name = docker("import", *changes, "-", data=bytes(10240))
        for tag in tags:
            docker("tag", name, tag)
        self.images.append(name)
        return name

    def container(self, image: str, labels: dict[str, str] | None = None) -> None:
        """A container that was made and does not run."""
        words = [word for key, value in (labels or {}).items() for word in ("--label", f"{key}={value}")]
        self.containers.append(docker("create", *words, image, "/nothing"))

    def release(self, number: int, image: str, name: str | None = None) -> dict[str, Any]:
        spec = {"image": name or f"{self.repository}:{number}", "artifact": {"image_id": image}, "command": None}
        return {
            "id": f"r{number}", "version": f"1.{number}.0", "image": spec["image"], "mode": "stable", "spec": spec,
            "spec_hash": f"h{number}", "slot": ("blue", "green")[number % 2], "time": "", "outcome": "new",
        }  # fmt: skip

    def remember(self, current: state.State, home: Path | None = None, service: str | None = None) -> state.State:
        folder = (home or self.home) / (service or self.name)
        folder.mkdir(parents=True, exist_ok=True)
        state.save(folder, current)
        return current

    def deploys(self, *releases: dict[str, Any]) -> tuple[state.State, state.State]:
        """The host's states before and after the last of ``releases``."""
        before = after = state.empty(self.name)
        for entry in releases:
            before, after = after, state.commit(after, entry, "docker")
        self.remember(after)
        return before, after

    def six(self, **names: str) -> tuple[list[str], state.State, state.State]:
        """Six releases of an image each, so that the first is dropped; ``names`` {"r1": name} renames images."""
        tags = [names.get(f"r{number}", f"{self.repository}:{number}") for number in range(1, 7)]
        images = [self.image(tag) for tag in tags]
        before, after = self.deploys(*(self.release(n + 1, images[n], tags[n]) for n in range(6)))
        return images, before, after

    def prune(self, before: state.State, after: state.State, age: float = 0.0) -> dict[str, list[str]]:
        report = prune.prune(self.options, before, after, age)
        # Bases of images that other tests build meanwhile lose their names, and may go too.
        own = (self.name, *(image[7:19] for image in self.images))
        return {**report, "removed": [line for line in report["removed"] if any(word in line for word in own)]}

    def has(self, image: str) -> bool:
        done = subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False)
        return done.returncode == 0


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    if made.containers:
        docker("rm", "--force", *made.containers)
    left = [image for image in made.images if made.has(image)]
    if left:
        docker("image", "rm", "--force", *left)


def test_the_image_of_a_dropped_release_goes_and_those_of_kept_ones_stay(host: Host) -> None:
    images, before, after = host.six()
    report = host.prune(before, after)
    assert report == {"removed": [f"image {host.repository}:1 {images[0][7:19]}"], "problems": []}
    assert [host.has(image) for image in images] == [False, *[True] * 5]
    assert host.prune(before, after) == {"removed": [], "problems": []}


def test_what_a_container_or_a_second_name_holds_stays_and_is_no_problem(host: Host) -> None:
    images, before, after = host.six()
    host.container(images[0])
    assert host.prune(before, after) == {"removed": [], "problems": []}
    docker("rm", host.containers.pop())
    docker("tag", images[0], f"{host.name}/mine:1")
    assert host.prune(before, after) == {"removed": [], "problems": []}
    assert host.has(images[0])
    docker("rmi", f"{host.name}/mine:1")
    assert len(host.prune(before, after)["removed"]) == 1


def test_an_image_that_another_one_is_built_on_stays(host: Host) -> None:
    images, before, after = host.six()
    child = docker("build", "--quiet", "--network", "none", "-", data=f"FROM {images[0]}\nENV A=1\n".encode())
    host.images.insert(0, child)
    assert host.prune(before, after)["problems"] == []
    if json.loads(docker("image", "inspect", child))[0]["Parent"]:  # BuildKit's images have none
        assert host.has(images[0])
    assert host.has(child)


def test_nginx_with_the_name_the_stack_uses_stays(host: Host) -> None:
    images, before, after = host.six(r1=str(host.options["nginx_image"]))
    assert host.prune(before, after) == {"removed": [], "problems": []}
    assert host.has(images[0])


def test_a_service_in_the_same_home_keeps_its_images(host: Host) -> None:
    images, before, after = host.six()
    host.remember(state.commit(state.empty("b"), host.release(1, images[0]), "docker"), service="b")
    assert host.prune(before, after) == {"removed": [], "problems": []}
    assert host.has(images[0])


def test_a_stack_in_another_home_keeps_its_images(host: Host) -> None:
    images, before, after = host.six()
    elsewhere = host.folder / "elsewhere"
    theirs = f"{host.name}-b"
    host.remember(state.commit(state.empty(theirs), host.release(1, images[0]), "docker"), elsewhere, theirs)
    project = "com.docker.compose.project"
    folder = str(elsewhere / theirs / "config")
    host.container(images[5], {project: f"swiftdeploy-{theirs}", f"{project}.working_dir": folder})
    assert host.prune(before, after) == {"removed": [], "problems": []}
    assert host.has(images[0])
    (elsewhere / theirs / "state.json").write_text("{")
    report = host.prune(before, after)
    assert report["removed"] == []
    assert str(elsewhere / theirs / "state.json") in report["problems"][0]


def context(folder: Path, text: str) -> Path:
    """A build context of an image with one file."""
    path = folder / "context.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for name, content in (("Dockerfile", "FROM scratch\nCOPY app /app\n"), ("app", text)):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content.encode()))
    return path


def built(host: Host, text: str) -> str:
    name = f"{host.repository}:latest"
    done = Engine(10, 60, 60).build(name, secrets.token_hex(4), context(host.folder, text), {})
    assert done.ok, done.text
    found = docker("image", "inspect", "--format", "{{.Id}}", name)
    host.images.append(found)
    return found


def test_rebuilding_leaves_nothing_behind_but_what_releases_need(host: Host) -> None:
    name = f"{host.repository}:latest"
    refused, kept, newest = (built(host, secrets.token_hex(8)) for _ in range(3))
    before, after = host.deploys(host.release(1, kept, name), host.release(2, newest, name))
    other = host.image(repository=f"{host.name}/other")
    plain = host.image()
    # A run may be about to start what was built just now.
    assert host.prune(before, after, prune.DAY) == {"removed": [], "problems": []}
    report = host.prune(before, after)
    assert report == {"removed": [f"image {host.repository} {refused[7:19]}"], "problems": []}
    assert [host.has(image) for image in (refused, kept, newest, other, plain)] == [False, True, True, True, True]


def test_a_leftover_of_nginx_goes_unless_a_container_has_it(host: Host) -> None:
    _, _, after = host.six()
    idle, used = (host.image(repository=f"{host.name}/nginx") for _ in range(2))
    host.container(used)
    assert host.prune(after, after)["problems"] == []
    assert (host.has(idle), host.has(used)) == (False, True)


def test_a_needed_image_is_not_removed_along_with_one_that_was_built_on_it(host: Host) -> None:
    needed = host.image()
    before, after = host.deploys(host.release(1, needed))
    recipe = f"FROM {needed}\nENV A={host.name}\nLABEL {LABEL}=x {REPOSITORY_LABEL}={host.repository}\n"
    host.images.insert(0, docker("build", "--quiet", "--network", "none", "-", data=recipe.encode()))
    assert host.prune(before, after)["problems"] == []
    assert host.has(needed)


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with the docker commands that were run, one a line."""
    log, folder = tmp_path / "asked", tmp_path / "bin"
    log.touch()
    folder.mkdir()
    program = folder / "docker"
    program.write_text(f'#!/bin/sh\necho "$1 $2" >>{log}\nexec {shutil.which("docker")} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return log


def test_nothing_to_do_takes_two_questions_at_most(host: Host, asked: Path) -> None:
    _, before, after = host.six()
    host.prune(before, after)
    # The host looks at one that is too young at every run.
    leftover = host.image(repository=host.repository)
    asked.write_text("")
    started = time.monotonic()
    assert host.prune(before, after, prune.DAY) == {"removed": [], "problems": []}
    took = time.monotonic() - started
    assert asked.read_text().splitlines() == ["image ls", "image inspect"]
    assert host.has(leftover)
    assert took < 5


@pytest.mark.parametrize("script", ["exit 1", "sleep 60", "echo nonsense"])
def test_an_engine_that_does_not_answer_is_told_in_bounded_time(host: Host, asked: Path, script: str) -> None:
    _, before, after = host.six()
    program = asked.parent / "bin" / "docker"
    whole = program.read_text()
    program.write_text(f"#!/bin/sh\n{script}\n")
    started = time.monotonic()
    report = prune.prune(host.options, before, after, budget=1.0)
    took = time.monotonic() - started
    program.write_text(whole)
    assert report["removed"] == []
    assert len(report["problems"]) == 1
    assert took < 10
