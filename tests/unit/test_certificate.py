"""The certificate and key of nginx are judged before they are used, and copied for nginx alone."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from support.certificates import Files, make_pair, openssl
from swiftdeploy_target import certificate


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return make_pair(tmp_path_factory.mktemp("pair"), "one.example.org")


def paths(files: Files) -> dict[str, str]:
    return {"certificate": str(files.certificate), "key": str(files.key)}


def copied(pair: Files, folder: Path) -> Files:
    files = Files(folder / "chain.pem", folder / "key.pem")
    files.take_from(pair)
    return files


def missing(files: Files) -> None:
    files.key.unlink()


def a_folder(files: Files) -> None:
    files.certificate.unlink()
    files.certificate.mkdir()


def a_pipe(files: Files) -> None:
    files.key.unlink()
    os.mkfifo(files.key)


def swapped(files: Files) -> None:
    aside = files.key.read_bytes()
    files.key.write_bytes(files.certificate.read_bytes())
    files.certificate.write_bytes(aside)


def der(files: Files) -> None:
    openssl("x509", "-in", str(files.certificate), "-outform", "der", "-out", str(files.certificate))


def empty_key(files: Files) -> None:
    files.key.write_bytes(b"")


def encrypted(files: Files) -> None:
    files.key.write_text(openssl("pkcs8", "-topk8", "-in", str(files.key), "-passout", "pass:x"))


def another_key(files: Files) -> None:
    other = make_pair(files.key.parent, "two.example.org", kind="rsa")
    shutil.copy(other.key, files.key)


def torn(files: Files) -> None:
    text = files.certificate.read_text().splitlines()
    files.certificate.write_text("\n".join([text[0], text[1][:20], text[-1]]) + "\n")


def expired(files: Files) -> None:
    files.take_from(make_pair(files.key.parent, "old.example.org", days=-1))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (missing, r"nginx\.tls\.key: \S+key\.pem is not there: put the file on this host"),
        (a_folder, r"nginx\.tls\.certificate: \S+chain\.pem is no regular file"),
        (a_pipe, r"nginx\.tls\.key: \S+key\.pem is no regular file"),
        (swapped, r"chain\.pem holds a private key.*wrong way round\?\n.*key\.pem holds a certificate"),
        (der, r"chain\.pem holds no certificate in PEM form"),
        (empty_key, r"key\.pem holds no private key in PEM form"),
        (encrypted, r"key\.pem is encrypted, and nobody is there to type its passphrase"),
        (another_key, r"key\.pem is not the key of \S+chain\.pem"),
        (torn, r"chain\.pem holds something that is no certificate"),
        (expired, r"chain\.pem expired at \d{4}-\d\d-\d\d \d\d:\d\d UTC: renew it"),
    ],
)
def test_what_is_wrong_with_a_pair_is_a_sentence(
    pair: Files, tmp_path: Path, spoil: Callable[[Files], None], says: str
) -> None:
    files = copied(pair, tmp_path)
    spoil(files)
    with pytest.raises(certificate.CertificateError) as caught:
        certificate.read(paths(files))
    assert re.search(says, str(caught.value), re.DOTALL), caught.value
    assert "Traceback" not in str(caught.value)
    assert "-----BEGIN EC" not in str(caught.value)


@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_a_pair_that_belongs_together_is_taken_and_named_after_its_content(tmp_path: Path, kind: str) -> None:
    first, second = (make_pair(tmp_path, name, kind=kind) for name in ("a.example.org", "b.example.org"))
    assert certificate.read(paths(first)).digest == certificate.read(paths(first)).digest
    assert certificate.read(paths(first)).digest != certificate.read(paths(second)).digest


def test_a_key_that_this_user_may_not_read_is_told_of(
    pair: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = copied(pair, tmp_path)
    opened = os.open

    def refuse(path: object, *rest: int) -> int:
        if path == files.key:
            raise PermissionError(13, "Permission denied")
        return opened(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(certificate.os, "open", refuse)
    with pytest.raises(certificate.CertificateError, match=r"key\.pem cannot be read by the user who deploys"):
        certificate.read(paths(files))


def test_the_dates_are_those_that_openssl_reads(tmp_path: Path) -> None:
    # 2050 is where certificates change the form of their dates.
    for days in (1, 40 * 365):
        files = make_pair(tmp_path, f"d{days}.example.org", days=days)
        shown = openssl("x509", "-in", str(files.certificate), "-noout", "-enddate").strip().partition("=")[2]
        text = files.certificate.read_text()
        _begins, ends = certificate.validity(certificate.ssl.PEM_cert_to_DER_cert(text))
        assert ends == datetime.strptime(shown, "%b %d %H:%M:%S %Y GMT").replace(tzinfo=UTC)


def test_the_copy_is_for_nginx_alone_and_others_are_forgotten(pair: Files, tmp_path: Path) -> None:
    files, config = copied(pair, tmp_path), tmp_path / "config"
    config.mkdir()
    wanted = certificate.look(paths(files), config, way_back=False)
    assert wanted is not None
    owner = (os.geteuid(), os.getegid())
    certificate.place(config, wanted, owner)
    placed = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (config / "tls").iterdir()}
    assert placed == {f"{wanted['digest']}.crt": 0o600, f"{wanted['digest']}.key": 0o600}
    assert stat.S_IMODE((config / "tls").stat().st_mode) == 0o700

    files.take_from(make_pair(tmp_path, "renewed.example.org"))
    renewed = certificate.look(paths(files), config, way_back=False)
    assert renewed is not None
    with pytest.raises(certificate.CertificateError, match="changed during this run"):
        certificate.place(config, {**renewed, "digest": "0" * 16}, owner)
    certificate.place(config, renewed, owner)
    certificate.forget_others(config, f"ssl_certificate tls/{renewed['digest']}.crt; tls/{renewed['digest']}.key;")
    assert {path.stem for path in (config / "tls").iterdir()} == {renewed["digest"]}


def test_a_way_back_goes_on_with_the_copy_where_the_files_are_gone(pair: Files, tmp_path: Path) -> None:
    files, config = copied(pair, tmp_path), tmp_path / "config"
    wanted = certificate.look(paths(files), config, way_back=True)
    assert wanted is not None
    certificate.place(config, wanted, None)
    files.key.unlink()
    there = certificate.look(paths(files), config, way_back=True)
    assert there is not None
    assert there["digest"] == wanted["digest"]
    assert "is not there" in there["problem"]
    refused = certificate.look(paths(files), config, way_back=False)
    assert refused is not None
    assert refused["digest"] is None
    # What is placed already needs the files no more.
    certificate.place(config, there, None)
