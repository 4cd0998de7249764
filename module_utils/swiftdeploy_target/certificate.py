"""The certificate and key that nginx answers HTTPS with: judged before anything is done, copied to where nginx reads.

The manifest names files of the host. nginx does not read them there: in its container or unit they are out of reach,
and a key that only root may read is no use to its user. So the stack keeps a copy, for nginx alone, beside nginx.conf.
The copy is named after its content: renewed files are another configuration, which ``nginx -t`` judges and a reload
loads, while what is loaded keeps the files that it names.
"""

from __future__ import annotations

import os
import re
import ssl
import stat
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from .files import sha256, write_atomic
from .runtime import NGINX_USER

FOLDER = "tls"
MAX_BYTES = 1024 * 1024
# How OpenSSL says that a key is another one, and that it is of another kind.
NOT_A_PAIR = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_PRIVATE_KEY = re.compile(r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----")
_SHOWN = "%Y-%m-%d %H:%M UTC"


class CertificateError(Exception):
    """The pair cannot be used. The message says which file, what is wrong, and what to do."""


class Pair(NamedTuple):
    """The bytes of both files and a name for them."""

    certificate: bytes
    key: bytes

    @property
    def digest(self) -> str:
        """Changes with either file."""
        return sha256(sha256(self.certificate).encode() + sha256(self.key).encode())[:16]


def read(paths: Dict[str, Any]) -> Pair:
    """The pair at {"certificate", "key"}, read and judged as one. Raises CertificateError with all that is wrong."""
    found: Dict[str, bytes] = {}
    problems: List[str] = []
    for name in ("certificate", "key"):
        try:
            found[name] = _content(f"nginx.tls.{name}: {paths[name]}", Path(paths[name]))
        except CertificateError as error:
            problems.append(str(error))
    if "certificate" in found:
        problems += _against_certificate(f"nginx.tls.certificate: {paths['certificate']}", found["certificate"])
    if "key" in found:
        problems += _against_key(f"nginx.tls.key: {paths['key']}", found["key"])
    if not problems:
        problems += _against_both(paths)
    if problems:
        raise CertificateError("\n".join(problems))
    return Pair(found["certificate"], found["key"])


def _content(what: str, path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise CertificateError(f"{what} is no regular file on this host: name the PEM file itself.")
            content = os.read(descriptor, MAX_BYTES + 1)
        finally:
            os.close(descriptor)
    except (FileNotFoundError, NotADirectoryError):
        raise CertificateError(
            f"{what} is not there: put the file on this host, or take nginx.tls out of the manifest."
        ) from None
    except PermissionError:
        raise CertificateError(
            f"{what} cannot be read by the user who deploys (uid {os.geteuid()}): let that user read it, for example "
            "through a group; it needs no other rights, and nginx gets a copy of its own."
        ) from None
    except OSError as error:
        raise CertificateError(f"{what} cannot be read: {error.strerror or error}.") from None
    if len(content) > MAX_BYTES:
        raise CertificateError(f"{what} has more than 1 MiB, which is no PEM file of a certificate or key.")
    return content


def _against_certificate(what: str, content: bytes) -> List[str]:
    text = content.decode("latin-1")
    first = _CERTIFICATE.search(text)
    if first is None:
        if _PRIVATE_KEY.search(text):
            return [f"{what} holds a private key and no certificate: are the two files the wrong way round?"]
        return [f"{what} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----): convert it to PEM."]
    try:
        begins, ends = validity(ssl.PEM_cert_to_DER_cert(first[0]))
    except (ValueError, IndexError):
        return [f"{what} holds something that is no certificate: make the file anew from what its issuer gave you."]
    now = datetime.now(timezone.utc)
    if ends < now:
        return [f"{what} expired at {ends.strftime(_SHOWN)}: renew it; clients would refuse it."]
    if begins > now:
        return [
            f"{what} is valid only from {begins.strftime(_SHOWN)}, and it is {now.strftime(_SHOWN)} on this host: "
            "look at the clock, or wait."
        ]
    return []


def _against_key(what: str, content: bytes) -> List[str]:
    text = content.decode("latin-1")
    if "-----BEGIN ENCRYPTED PRIVATE KEY" in text or "Proc-Type: 4,ENCRYPTED" in text:
        return [f"{what} is encrypted, and nobody is there to type its passphrase: store it without one."]
    if _PRIVATE_KEY.search(text):
        return []
    if _CERTIFICATE.search(text):
        return [f"{what} holds a certificate and no private key: are the two files the wrong way round?"]
    return [f"{what} holds no private key in PEM form (-----BEGIN PRIVATE KEY-----): convert it to PEM."]


def _against_both(paths: Dict[str, Any]) -> List[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # A passphrase, so that OpenSSL never asks the terminal for one.
        context.load_cert_chain(paths["certificate"], paths["key"], password="")
    except (ssl.SSLError, OSError, ValueError) as error:
        if getattr(error, "reason", None) in NOT_A_PAIR:
            return [
                f"nginx.tls: {paths['key']} is not the key of {paths['certificate']} (whose first certificate must be "
                "the server's own): name the two that belong together."
            ]
        why = getattr(error, "reason", None) or str(error)
        return [
            f"nginx.tls: {paths['certificate']} and {paths['key']} cannot be loaded as certificate and key ({why}): "
            "make the files anew from what their issuer gave you."
        ]
    return []


def validity(der: bytes) -> Tuple[datetime, datetime]:
    """From when until when a certificate is valid. Raises ValueError or IndexError for what is no certificate."""
    _tag, body, _rest = _element(der)
    _tag, body, _rest = _element(body)
    tag, _version, rest = _element(body)
    # The version is optional; then come the serial number, the algorithm, the issuer, the validity.
    for _ in range(3 if tag == 0xA0 else 2):
        _tag, _body, rest = _element(rest)
    _tag, body, _rest = _element(rest)
    first, begins, rest = _element(body)
    second, ends, _rest = _element(rest)
    return _time(first, begins), _time(second, ends)


def _element(data: bytes) -> Tuple[int, bytes, bytes]:
    """Tag and content of the DER element that ``data`` begins with, and what follows it."""
    length, start = data[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(data[2:start], "big")
    return data[0], data[start : start + length], data[start + length :]


def _time(tag: int, content: bytes) -> datetime:
    text = content.decode("ascii")
    if tag == 0x17:
        # UTCTime has two digits for the year, which mean 1950 to 2049.
        text = ("19" if text[:2] >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc)


def kept(config: Path) -> Optional[str]:
    """The digest of the newest copy in the stack's ``config`` folder, None when there is none or it may not be seen."""
    try:
        found = [(path.stat().st_mtime, path.stem) for path in (config / FOLDER).glob("*.crt")]
    except OSError:
        return None
    return max(found)[1] if found else None


def look(paths: Optional[Dict[str, Any]], config: Path, way_back: bool) -> Optional[Dict[str, Any]]:
    """What the run goes on with: {"certificate", "key", "digest", "problem"}, None without TLS.

    ``way_back``: a rollback needs nothing but the host, so a copy that is there serves where the files do not.
    """
    if not paths:
        return None
    try:
        return {**paths, "digest": read(paths).digest, "problem": None}
    except CertificateError as error:
        digest = kept(config) if way_back else None
        return {**paths, "digest": digest, "problem": str(error)}


def place(config: Path, wanted: Dict[str, Any], owner: Optional[Tuple[int, int]]) -> None:
    """Copy the pair to where nginx.conf in ``config`` names it, for ``owner`` alone.

    Raises CertificateError when the files are not any more what was looked at, OSError.
    """
    folder = config / FOLDER
    targets = [(folder / f"{wanted['digest']}.crt", "certificate"), (folder / f"{wanted['digest']}.key", "key")]
    if all(_is_for(path, owner, 0o600) for path, _name in targets):
        return
    pair = read(wanted)
    if pair.digest != wanted["digest"]:
        raise CertificateError("the files of nginx.tls were changed during this run: run the same command again.")
    make_folder(folder, owner)
    for path, name in targets:
        write_atomic(path, getattr(pair, name), 0o600)
        if owner is not None:
            os.chown(path, *owner)


def make_folder(folder: Path, owner: Optional[Tuple[int, int]]) -> None:
    """A folder that nobody but ``owner`` enters."""
    if _is_for(folder, owner, 0o700):
        return
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if owner is not None:
        os.chown(folder, *owner)
    folder.chmod(0o700)


def _is_for(path: Path, owner: Optional[Tuple[int, int]], mode: int) -> bool:
    try:
        found = path.stat()
    except OSError:
        return False
    return stat.S_IMODE(found.st_mode) == mode and owner in (None, (found.st_uid, found.st_gid))


def forget_others(config: Path, text: str) -> None:
    """Remove the copies that ``text``, the nginx.conf that is loaded, does not name."""
    for path in (config / FOLDER).glob("*"):
        if f"{FOLDER}/{path.name}" not in text:
            path.unlink()


def owner_of(options: Dict[str, Any]) -> Optional[Tuple[int, int]]:
    """User and group that nginx reads files as; None where it is whoever runs the stack."""
    if options["runtime"] != "docker" or os.geteuid() != 0:
        return None
    user, _colon, group = str(options.get("nginx_user") or NGINX_USER).partition(":")
    return int(user), int(group)
