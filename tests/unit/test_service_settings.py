"""What the service makes of its environment."""

from __future__ import annotations

from pathlib import Path

import pytest
from swift_service.settings import MOST_DELAYED, SettingsError, most_delayed, read_settings


def test_an_empty_environment_gives_a_stable_service_on_port_3000() -> None:
    settings = read_settings({})
    assert (settings.mode, settings.bind, settings.workers, settings.threads) == ("stable", "0.0.0.0:3000", 2, 4)
    assert settings.shutdown_timeout == 30
    assert settings.state_dir is None


def test_empty_variables_count_as_unset() -> None:
    assert read_settings({"PORT": "", "MODE": "", "STATE_DIR": ""}) == read_settings({})


def test_every_variable_is_taken() -> None:
    settings = read_settings(
        {
            "APP_NAME": "shop",
            "APP_VERSION": "2.0.0",
            "MODE": "canary",
            "HOST": "127.0.0.1",
            "PORT": "8123",
            "WEB_CONCURRENCY": "3",
            "THREADS": "8",
            "SHUTDOWN_TIMEOUT": "5",
            "STATE_DIR": "/run/shop",
            "LOG_DIR": "/var/log/shop",
        }
    )
    assert (settings.name, settings.version, settings.canary) == ("shop", "2.0.0", True)
    assert (settings.bind, settings.workers, settings.threads) == ("127.0.0.1:8123", 3, 8)
    assert (settings.shutdown_timeout, settings.state_dir) == (5, Path("/run/shop"))
    assert settings.log_dir == Path("/var/log/shop")


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_ipv6_address_is_bracketed(host: str) -> None:
    assert read_settings({"HOST": host, "PORT": "80"}).bind == "[::1]:80"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODE", "Canary"),
        ("PORT", "0"),
        ("PORT", "65536"),
        ("PORT", "80a"),
        ("PORT", "-1"),
        ("PORT", "٣"),
        ("PORT", "1" * 5000),
        ("WEB_CONCURRENCY", "0"),
        ("THREADS", "many"),
        ("SHUTDOWN_TIMEOUT", "0.5"),
    ],
)
def test_a_bad_variable_is_named_with_what_is_allowed(key: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings({key: value})
    assert key in str(caught.value)
    assert value[:40] in str(caught.value)
    assert len(str(caught.value)) < 120


def test_all_bad_variables_are_named_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings({"MODE": "blue", "PORT": "x", "THREADS": "0"})
    assert all(key in str(caught.value) for key in ("MODE", "PORT", "THREADS"))


def test_threads_for_delayed_requests_exist_in_canary_mode_alone(tmp_path: Path) -> None:
    unlimited = tmp_path / "pids.max"
    unlimited.write_text("max\n")
    assert most_delayed(read_settings({"MODE": "stable"}), [unlimited]) == 0
    assert most_delayed(read_settings({"MODE": "canary"}), [unlimited]) == MOST_DELAYED
    assert most_delayed(read_settings({"MODE": "canary"}), [tmp_path / "missing"]) == MOST_DELAYED


@pytest.mark.parametrize("limit", [32, 64, 100, 256, 1000])
def test_threads_for_delayed_requests_fit_into_the_limit_of_processes(tmp_path: Path, limit: int) -> None:
    file = tmp_path / "pids.max"
    file.write_text(f"{limit}\n")
    settings = read_settings({"MODE": "canary"})
    places = most_delayed(settings, [tmp_path / "missing", file])
    assert 1 <= places <= MOST_DELAYED
    assert 1 + settings.workers * (1 + settings.threads + places) <= limit
