"""The images role against the real engine: built where no registry answers, then left alone."""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.server
import io
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PREFIX = f"sdtest-{secrets.token_hex(3)}"
# A registry nobody listens on: refused at once, on any machine.
NO_REGISTRY = "127.0.0.1:9"

# What the role builds where no registry has a base.
OWN_BASE = "swiftdeploy/python:3.13"
# What a health check would compile.
UNCOMPILED = """
import os, sys, swift_service.healthcheck
for module in list(sys.modules.values()):
    path = module.__spec__ and module.__spec__.has_location and module.__spec__.cached
    if path and not os.path.exists(path):
        print(path)
"""

pytestmark = pytest.mark.docker

PLAY = """
- hosts: localhost
  gather_facts: false
  vars: {ansible_python_interpreter: "{{ ansible_playbook_python }}", ansible_connection: local}
  tasks:
    - ansible.builtin.include_role: {name: images}
"""


def docker(*words: str) -> str:
    """What the docker program prints, having ended well."""
    done = subprocess.run(["docker", *words], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def image_ids() -> dict[str, str]:
    """{name: id} of the images of this module that the engine has."""
    listed = docker("image", "ls", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").splitlines()
    return dict(line.split(" ") for line in listed if PREFIX in line)


class Role:
    """Runs the role with settings of its own: images nobody else has, a small service, no registry."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.service = folder / "service"
        self.service.mkdir()
        (self.service / "Dockerfile").write_text(
            "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nCOPY app.py /app.py\nCMD python3 /app.py\n"
        )
        (self.service / "app.py").write_text("print('one')\n")
        (folder / "play.yml").write_text(PLAY)
        self.settings: dict[str, Any] = {
            "images_service": f"{NO_REGISTRY}/{PREFIX}-small:1",
            "images_bundled_repository": f"{NO_REGISTRY}/{PREFIX}-small",
            "images_nginx": f"swiftdeploy/nginx:1.31.3-{PREFIX}",
            "images_opa": f"swiftdeploy/opa:latest-{PREFIX}",
            "images_service_context": str(self.service),
            "parts_cache_dir": str(REPOSITORY / ".cache" / "parts"),
            "images_base": f"{NO_REGISTRY}/python:3.13-slim",
            "images_source": "auto",
            "images_dir": str(folder),
            "images_archive_dir": str(folder / "archives"),
            "images_incoming_dir": str(folder / "incoming"),
            "images_docker_config": "",
            "images_login": None,
        }

    def run(self, *words: str, environment: dict[str, str] | None = None, **changes: Any) -> dict[str, Any]:
        """The result of the role's main task."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
        done = subprocess.run(
            [
                Path(sys.executable).parent / "ansible-playbook", "-i", "localhost,", self.folder / "play.yml",
                "-e", json.dumps({**self.settings, **changes}), *words,
            ],
            cwd=REPOSITORY,
            env={
                **kept,
                "ANSIBLE_CALLBACKS_ENABLED": "ansible.posix.json",
                "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
                "ANSIBLE_DEPRECATION_WARNINGS": "false",
                **(environment or {}),
            },
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stdout + done.stderr
        tasks = json.loads(done.stdout[done.stdout.index("{") :])["plays"][0]["tasks"]
        answers = {task["task"]["name"]: task["hosts"]["localhost"] for task in tasks}
        result: dict[str, Any] = answers["images : Ensure the images"]
        if "msg" in result:
            assert done.returncode != 0
            return result
        assert done.returncode == 0, done.stdout
        images = answers["images : Hand the images on"]["ansible_facts"]["images_result"]
        changed = any(answer.get("changed") for name, answer in answers.items() if name.startswith("images : "))
        return {"changed": changed, "images": images}


@pytest.fixture(scope="module", autouse=True)
def engine() -> Iterator[None]:
    """A running engine; what this module built is removed from it afterwards."""
    subprocess.run([REPOSITORY / "tests" / "engine" / "up.sh"], timeout=600, check=True)
    yield
    names = list(image_ids())
    if names:
        docker("image", "rm", "--force", *names)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Role, dict[str, Any]]:
    """The role after its first run on a host that had none of its images, and that run's result."""
    role = Role(tmp_path_factory.mktemp("images"))
    return role, role.run()


@pytest.fixture
def role(built: tuple[Role, dict[str, Any]], tmp_path: Path) -> Role:
    """The same role with a service folder of its own, while everything is built and unchanged."""
    made = Role(tmp_path)
    shutil.copytree(built[0].service, made.service, dirs_exist_ok=True)
    return made


def test_what_is_nowhere_is_built(built: tuple[Role, dict[str, Any]]) -> None:
    role, result = built
    assert result["changed"] is True
    names = {key: role.settings[f"images_{key}"] for key in ("service", "nginx", "opa")}
    ids = image_ids()
    assert result["images"] == {
        key: {"name": name, "id": ids[name], "source": "built", "changed": True} for key, name in names.items()
    }
    hardened = ["--rm", "--network", "none", "--read-only", "--tmpfs", "/tmp:mode=1777", "--cap-drop", "ALL"]
    assert docker("run", *hardened, "--user", "65532:65532", names["service"]) == "one"
    docker("run", *hardened, "--user", "65532:65532", "--entrypoint", "nginx", names["nginx"], "-e", "stderr", "-v")
    assert "Version: " in docker("run", *hardened, "--entrypoint", "/opa", names["opa"], "version")
    for name in names.values():
        assert docker("image", "inspect", "--format", '{{index .Config.Labels "org.swiftdeploy.inputs"}}', name)


def test_a_second_run_changes_nothing(role: Role) -> None:
    before = image_ids()
    result = role.run()
    assert result["changed"] is False
    assert {image["source"] for image in result["images"].values()} == {"present"}
    assert image_ids() == before


def test_an_edit_of_the_service_folder_builds_that_image_again_and_no_other(role: Role) -> None:
    before = image_ids()
    (role.service / "app.py").write_text("print('two')\n")
    foreseen = role.run("--check")
    assert (foreseen["changed"], foreseen["images"]["service"]["source"]) == (True, "built")
    assert image_ids() == before
    result = role.run()
    assert {role for role, image in result["images"].items() if image["changed"]} == {"service"}
    name = role.settings["images_service"]
    assert {key: value for key, value in image_ids().items() if before[key] != value} == {
        name: result["images"]["service"]["id"]
    }
    assert docker("run", "--rm", "--network", "none", name) == "two"
    (role.service / "app.py").write_text("print('one')\n")
    assert role.run()["changed"] is True


def test_check_mode_builds_nothing_and_says_what_it_would_do(role: Role) -> None:
    before = image_ids()
    new = f"{NO_REGISTRY}/{PREFIX}-other:1"
    result = role.run("--check", images_service=new, images_bundled_repository=new.removesuffix(":1"))
    assert result["changed"] is True
    assert result["images"]["service"] == {"name": new, "id": None, "source": "built", "changed": True}
    assert image_ids() == before


@pytest.mark.parametrize("words", [(), ("--check",)], ids=["real", "check"])
def test_a_users_own_image_that_cannot_be_had_is_an_error_and_never_ours(role: Role, words: tuple[str, ...]) -> None:
    before = image_ids()
    wanted = f"{NO_REGISTRY}/{PREFIX}-acme/shop:2.0"
    result = role.run(*words, images_service=wanted)
    assert result["failed"] is True
    message = result["msg"]
    assert message.startswith(f"1 of 3 images cannot be had:\n  service: {wanted}\n    pull: registry {NO_REGISTRY}")
    assert "nothing of ours runs under the name" in message
    assert f"docker save {wanted} | ssh HOST docker load" in message
    assert image_ids() == before


def test_pull_alone_never_builds(role: Role) -> None:
    result = role.run(images_service=f"{NO_REGISTRY}/{PREFIX}-small:pulled", images_source="pull")
    assert result["failed"] is True
    assert "build: images.source is pull" in result["msg"]


def test_a_build_that_fails_is_quoted(role: Role) -> None:
    (role.service / "Dockerfile").write_text("ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nRUN echo it broke here; exit 3\n")
    before = image_ids()
    result = role.run()
    assert result["failed"] is True
    assert "build: docker build failed" in result["msg"]
    assert "it broke here" in result["msg"]
    assert image_ids() == before


@pytest.mark.parametrize("name", ["--help", "a b", "-v", "{{ 1 + 1 }}"])
def test_what_is_no_image_name_never_reaches_docker(role: Role, name: str) -> None:
    # Given as a file: a template in it must stay the characters that it is.
    result = role.run(images_service={"__ansible_unsafe": name})
    assert result["failed"] is True
    assert f"{name!r} is not an image name" in result["msg"]


def test_an_engine_that_does_not_answer_is_said_with_what_to_do(role: Role) -> None:
    result = role.run(environment={"DOCKER_HOST": "unix:///nonexistent/docker.sock"})
    assert result["failed"] is True
    assert result["msg"].startswith("the Docker engine does not answer: ")
    assert "Start it" in result["msg"]


def registry_contents(name: str, tag: str) -> dict[str, tuple[str, bytes]]:
    """{path: (content type, body)} of a registry with one image that holds one file."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("hello"))
    layer = gzip.compress(tar.getvalue())
    rootfs = {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(tar.getvalue()).hexdigest()]}
    architecture = docker("version", "--format", "{{.Server.Arch}}")
    config = json.dumps({"architecture": architecture, "os": "linux", "config": {}, "rootfs": rootfs}).encode()
    docker_type = "application/vnd.docker."

    def described(kind: str, data: bytes) -> dict[str, Any]:
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        contents[f"/v2/{name}/blobs/{digest}"] = ("application/octet-stream", data)
        return {"mediaType": docker_type + kind, "size": len(data), "digest": digest}

    contents: dict[str, tuple[str, bytes]] = {"/v2/": ("application/json", b"{}")}
    manifest_type = docker_type + "distribution.manifest.v2+json"
    manifest = {
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": described("container.image.v1+json", config),
        "layers": [described("image.rootfs.diff.tar.gzip", layer)],
    }
    body = json.dumps(manifest).encode()
    for reference in (tag, "sha256:" + hashlib.sha256(body).hexdigest()):
        contents[f"/v2/{name}/manifests/{reference}"] = (manifest_type, body)
    return contents


@contextmanager
def registry(name: str, tag: str, auth: str = "") -> Iterator[str]:
    """A registry on loopback, which docker trusts without TLS: its host and port. With ``auth`` it lets one user in."""
    contents = registry_contents(name, tag)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if auth and self.headers.get("Authorization") != f"Basic {auth}":
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="shop"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            kind, body = contents.get(self.path, ("application/json", b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}'))
            self.send_response(200 if self.path in contents else 404)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Docker-Content-Digest", "sha256:" + hashlib.sha256(body).hexdigest())
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            """Nothing: the test's own output is enough."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_what_a_registry_has_is_pulled_and_then_left_alone(role: Role) -> None:
    with registry(f"{PREFIX}-shop", "2.0") as address:
        wanted = f"{address}/{PREFIX}-shop:2.0"
        foreseen = role.run("--check", images_service=wanted)["images"]["service"]
        assert foreseen == {"name": wanted, "id": None, "source": "pulled", "changed": True}
        assert wanted not in image_ids()
        pulled = role.run(images_service=wanted)["images"]["service"]
        assert pulled == {"name": wanted, "id": image_ids()[wanted], "source": "pulled", "changed": True}
        absent = role.run(images_service=f"{address}/{PREFIX}-shop:3.0")
        assert absent["failed"] is True
        assert "manifest unknown" in absent["msg"]
        assert "out of reach" not in absent["msg"]
    # The registry is gone now.
    again = role.run(images_service=wanted)
    assert again["changed"] is False
    assert again["images"]["service"]["source"] == "present"


def test_a_folder_of_the_host_with_credentials_opens_a_registry(role: Role, tmp_path: Path) -> None:
    auth = base64.b64encode(b"tests:a-password").decode()
    with registry(f"{PREFIX}-closed", "1.0", auth) as address:
        wanted = f"{address}/{PREFIX}-closed:1.0"
        refused = role.run(images_service=wanted)
        assert refused["failed"] is True
        assert "no basic auth credentials" in refused["msg"]
        folder = tmp_path / "docker"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"auths": {address: {"auth": auth}}}))
        pulled = role.run(images_service=wanted, images_docker_config=str(folder))["images"]["service"]
    assert pulled["source"] == "pulled"
    # Taken away again it is needed no more.
    assert role.run(images_service=wanted)["changed"] is False


@pytest.mark.parametrize("words", [(), ("--check",)], ids=["real", "check"])
def test_a_registry_that_takes_the_connection_and_says_nothing_is_given_up(role: Role, words: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        wanted = f"127.0.0.1:{silent.getsockname()[1]}/{PREFIX}-shop:2.0"
        result = role.run(*words, images_service=wanted, images_registry_timeout=0.5)
    assert result["failed"] is True
    assert "is out of reach" in result["msg"]
    assert "no answer within 0.5 s" in result["msg"]


@pytest.mark.slow
def test_the_bundled_service_is_built_small_and_runs_hardened(role: Role) -> None:
    name, base = f"{PREFIX}-bundled:1", f"{PREFIX}-base:1"
    # As python:3.13-slim is: nothing is compiled in it.
    bare = f"FROM {OWN_BASE}\nRUN find / -xdev -name '*.pyc' -exec rm {{}} +\n"
    subprocess.run(["docker", "build", "--tag", base, "-"], input=bare, capture_output=True, text=True, check=True)
    changes = {
        "images_service": name,
        "images_base": base,
        "images_source": "build",
        "images_service_context": str(REPOSITORY / "service"),
        "images_nginx": f"swiftdeploy/nginx:1.31.3-{PREFIX}",
    }
    assert role.run(**changes)["images"]["service"]["source"] == "built"
    assert int(docker("image", "inspect", "--format", "{{.Size}}", name)) < 150_000_000
    hardened = ["--network", "none", "--read-only", "--tmpfs", "/tmp:mode=1777", "--cap-drop", "ALL"]
    docker("run", "--detach", "--name", PREFIX, *hardened, "--health-interval", "1s", name)
    try:
        waited = 'until [ "$(docker inspect -f "{{.State.Health.Status}}" "$0")" = healthy ]; do sleep 0.1; done'
        subprocess.run(["sh", "-c", waited, PREFIX], timeout=60, check=True)
        assert "uid=65532" in docker("exec", PREFIX, "id")
        assert docker("exec", PREFIX, "python3", "-c", UNCOMPILED).splitlines() == []
    finally:
        docker("rm", "--force", PREFIX)
    assert role.run(**changes)["changed"] is False
