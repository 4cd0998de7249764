"""Certificates and keys for tests, made by openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import NamedTuple


class Files(NamedTuple):
    """Where a certificate and its key are."""

    certificate: Path
    key: Path

    def take_from(self, other: Files) -> None:
        """Get the content of another pair, as a renewal brings it."""
        self.certificate.write_bytes(other.certificate.read_bytes())
        self.key.write_bytes(other.key.read_bytes())
        self.key.chmod(0o600)


def openssl(*words: str, given: str = "") -> str:
    """What openssl prints."""
    return subprocess.run(["openssl", *words], input=given, check=True, capture_output=True, text=True).stdout


def make_pair(folder: Path, name: str, days: int = 30, kind: str = "ec") -> Files:
    """A certificate of its own authority for ``name``, valid for ``days`` from now; expired where they are negative."""
    files = Files(folder / f"{name}.crt", folder / f"{name}.key")
    options = {"ec": ["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"], "rsa": ["rsa:2048"]}[kind]
    subject, key = f"/CN={name}", str(files.key)
    openssl("req", "-newkey", *options, "-nodes", "-keyout", key, "-subj", subject, "-out", str(folder / "request"))
    openssl(
        *("x509", "-req", "-in", str(folder / "request"), "-signkey", key, "-days", str(days)),
        *("-out", str(files.certificate)),
    )
    files.key.chmod(0o600)
    return files
