"""What a bare host lacks, for each system and each wish."""

from __future__ import annotations

from pathlib import Path

import pytest

from swiftdeploy_target import bare_host
from swiftdeploy_target.runtime import Engine

NONE = Engine(False, "no Docker engine answers: no such program")
THERE = Engine(True, "Docker engine 28.2.2 with compose 2.36.0")


def release(number: str, family: str = "debian", codename: str = "x") -> bare_host.Release:
    """A release by its number."""
    return bare_host.release_of(
        f'PRETTY_NAME="{family.title()} {number}"\nID={family}\nVERSION_ID="{number}"\nVERSION_CODENAME={codename}\n'
    )


BOOKWORM = release("12", codename="bookworm")
TRIXIE = release("13", codename="trixie")
JAMMY = release("22.04", "ubuntu", "jammy")
NOBLE = release("24.04", "ubuntu", "noble")


def test_a_release_is_known_by_its_own_name_alone() -> None:
    assert release("22.04", "ubuntu", "jammy") == ("ubuntu", (22, 4), "jammy", "Ubuntu 22.04")
    assert bare_host.release_of('ID=debian\nPRETTY_NAME="Debian GNU/Linux forky/sid"\n').version == ()
    mint = bare_host.release_of('ID=linuxmint\nID_LIKE="ubuntu debian"\nVERSION_ID="22"\nPRETTY_NAME="Linux Mint 22"\n')
    assert (mint.family, mint.name) == ("", "Linux Mint 22")


@pytest.mark.parametrize(
    ("wanted", "runtime", "engine", "system", "there", "source"),
    [
        ("auto", "auto", THERE, BOOKWORM, [], "present"),
        ("auto", "auto", NONE, TRIXIE, [], "distribution"),
        ("auto", "auto", NONE, NOBLE, [], "distribution"),
        ("auto", "docker", NONE, JAMMY, [], "distribution"),
        ("auto", "auto", NONE, BOOKWORM, [], "docker"),
        ("auto", "auto", NONE, BOOKWORM, ["docker.io"], "distribution"),
        ("auto", "auto", NONE, TRIXIE, ["docker-ce"], "docker"),
        ("auto", "process", THERE, TRIXIE, [], "none"),
        ("none", "auto", THERE, TRIXIE, [], "none"),
        ("distribution", "process", NONE, BOOKWORM, [], "distribution"),
        ("docker", "auto", NONE, TRIXIE, [], "docker"),
    ],
)
def test_where_docker_comes_from(
    wanted: str, runtime: str, engine: Engine, system: bare_host.Release, there: list[str], source: str
) -> None:
    found = bare_host.docker_source(wanted, runtime, engine, system, there)
    assert (found.name, found.problem) == (source, "")


@pytest.mark.parametrize(
    ("wanted", "system", "there", "words"),
    [
        ("present", TRIXIE, [], "no Docker engine answers"),
        ("distribution", TRIXIE, ["docker-ce"], "docker-ce is installed"),
        ("distribution", release("11", codename="bullseye"), [], "no compose plugin"),
        ("docker", TRIXIE, ["docker.io"], "-e bootstrap_docker=distribution"),
    ],
)
def test_a_wish_that_cannot_be_met_says_what_can(
    wanted: str, system: bare_host.Release, there: list[str], words: str
) -> None:
    assert words in bare_host.docker_source(wanted, "auto", NONE, system, there).problem


def test_packages_and_the_release_that_the_plugin_is_from() -> None:
    assert bare_host.docker_packages("distribution", NOBLE) == ["docker.io", "docker-compose-v2"]
    assert bare_host.docker_packages("distribution", TRIXIE) == [
        "docker.io",
        "docker-cli",
        "docker-compose",
        "iptables",
    ]
    assert bare_host.docker_packages("distribution", BOOKWORM) == ["docker.io", "docker-compose", "iptables"]
    assert "docker-compose-plugin" in bare_host.docker_packages("docker", BOOKWORM)
    assert bare_host.docker_packages("none", BOOKWORM) == bare_host.docker_packages("present", BOOKWORM) == []
    assert bare_host.later_release("distribution", BOOKWORM) == "trixie"
    assert bare_host.later_release("distribution", TRIXIE) == bare_host.later_release("docker", BOOKWORM) == ""


def test_units_where_there_is_no_docker_and_systemd_can_fence_them() -> None:
    assert bare_host.wants_units("auto", "none", BOOKWORM, True) == (True, "")
    assert bare_host.wants_units("auto", "docker", BOOKWORM, True) == (False, "")
    assert bare_host.wants_units("always", "docker", BOOKWORM, True) == (True, "")
    assert bare_host.wants_units("never", "none", BOOKWORM, True) == (False, "")
    wanted, why = bare_host.wants_units("always", "none", JAMMY, True)
    assert not wanted
    assert "polkit of Ubuntu 22.04" in why
    assert "systemd does not run this host" in bare_host.wants_units("auto", "none", BOOKWORM, False)[1]


def test_the_folder_is_the_users_own_unless_it_is_named() -> None:
    assert bare_host.folder_of("~/.swiftdeploy", "/home/deploy") == "/home/deploy/.swiftdeploy"
    assert bare_host.folder_of("/srv/swiftdeploy/", "/home/deploy") == "/srv/swiftdeploy"


@pytest.mark.parametrize("home", ["/srv", "relative/x", "/srv/a b", "/srv/50%", "/srv/x\nUser=root"])
def test_a_folder_that_a_unit_file_would_misread_is_refused(home: str) -> None:
    assert "swiftdeploy_home" in bare_host.path_problems(home, "deploy")[0]


@pytest.mark.parametrize("user", ["root", "a b", "x;y", "Deploy", ""])
def test_a_user_that_is_none_is_refused(user: str) -> None:
    assert "swiftdeploy_user" in bare_host.path_problems("/srv/x", user)[0]


def test_units_that_run_the_stacks_of_another_stay(tmp_path: Path) -> None:
    units, home = tmp_path / "units", tmp_path / "ada"
    units.mkdir()
    assert bare_host.units_of_others(str(home), "bob", units) is None
    (units / "swiftdeploy-nginx@.service").write_text(f"[Service]\nUser=ada\nX-Home={home}\n")
    # Nothing is deployed there.
    assert bare_host.units_of_others("/srv/bob", "bob", units) is None
    (home / "shop").mkdir(parents=True)
    (home / "shop" / "state.json").write_text("{}")
    (tmp_path / "link").symlink_to(home)
    assert bare_host.units_of_others(str(tmp_path / "link"), "ada", units) is None
    for folder, user in (("/srv/bob", "bob"), (str(home), "bob"), ("/srv/ada", "ada")):
        assert f"run the stacks of ada in {home}" in str(bare_host.units_of_others(folder, user, units))
