"""How a host gets its images: present, else pulled, else built or sent; decided here, done through the docker program.

Words: a *role* is what an image is for (service, nginx, opa); a *recipe* is what the controller knows about
building it: ``{"inputs": sha256 or None, "why_not": str or None, "context": path of a tar or None, "later": bool}``.
``later``: it can be built once a part that is costly to get has been brought, so that part is got only then.
Where the controller can send the image itself, the recipe has ``"archive": {"ids": what the image may be called here,
"why_not": str or None, "path": where it has arrived on this host or None, "sha256"}``.
An *attempt* is ``{"how": "pull", "build" or "archive", "why": what went wrong, in words}``.
"""

from __future__ import annotations

import base64
import json
import os
import re
import selectors
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from .command import Finished, run
from .keep import sha256_of

LABEL = "org.swiftdeploy.inputs"
# Which name an image was built for, still known when a newer one has taken the name.
REPOSITORY_LABEL = "org.swiftdeploy.repository"
ROLES = ("service", "nginx", "opa")
DEFAULT_REGISTRY = "docker.io"
# Images of this namespace exist only where they were built: on a public registry anybody could take the name.
OWN_NAMESPACE = "swiftdeploy/"

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_LABEL_DNS = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_DOMAIN = rf"{_LABEL_DNS}(?:\.{_LABEL_DNS})*(?::[0-9]+)?"
_REFERENCE = re.compile(
    rf"(?P<repository>(?:{_DOMAIN}/)?{_COMPONENT}(?:/{_COMPONENT})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_OUT_OF_REACH = re.compile(
    r"no such host|dial tcp|i/o timeout|connection refused|connection reset|Client\.Timeout|TLS handshake timeout"
    r"|network is unreachable|no route to host|context deadline exceeded|proxyconnect|server misbehaving"
    r"|x509:|: EOF",
    re.IGNORECASE,
)
# The engine may be set up to trust such a registry; only a pull can tell.
_ENGINE_DECIDES = re.compile(r"HTTP response to HTTPS client|does not look like a TLS handshake|x509:")


class Reference(NamedTuple):
    """An image name taken apart; ``tag`` and ``digest`` are empty where the name has none."""

    repository: str
    tag: str
    digest: str

    @property
    def registry(self) -> str:
        """Host (and port) that is asked for it."""
        first, slash, _ = self.repository.partition("/")
        return first if slash and ("." in first or ":" in first or first == "localhost") else DEFAULT_REGISTRY

    @property
    def familiar(self) -> str:
        """The repository without the default registry: docker.io/library/nginx is nginx."""
        for prefix in (f"{DEFAULT_REGISTRY}/library/", f"{DEFAULT_REGISTRY}/", "library/"):
            if self.repository.startswith(prefix):
                return self.repository[len(prefix) :]
        return self.repository

    @property
    def full(self) -> str:
        """The name with its tag spelled out, so that docker has nothing to remark on it."""
        if self.digest:
            return f"{self.repository}@{self.digest}"
        return f"{self.repository}:{self.tag or 'latest'}"


def parse_reference(name: str) -> Reference:
    """``name`` taken apart. ValueError for what is no image name, so that it never reaches a command line."""
    match = _REFERENCE.fullmatch(name)
    if match is None:
        raise ValueError(
            f"{name!r} is not an image name: expected [registry/]repository[:tag] "
            "in lower case without spaces, for example nginx:latest"
        )
    return Reference(match["repository"], match["tag"] or "", match["digest"] or "")


def whole_name(name: str) -> Dict[str, str]:
    """``name`` as the registry knows it: ``{"name", "registry", "repository", "tag", "digest"}``. Raises ValueError.

    nginx is docker.io and library/nginx; tag and digest are empty where the name has none.
    """
    reference = parse_reference(name)
    registry, repository = reference.registry.lower(), reference.repository
    if repository.lower().startswith(f"{registry}/"):
        repository = repository[len(registry) + 1 :]
    if registry == "index.docker.io":
        registry = DEFAULT_REGISTRY
    if registry == DEFAULT_REGISTRY and "/" not in repository:
        repository = f"library/{repository}"
    return {
        "name": name,
        "registry": registry,
        "repository": repository,
        "tag": reference.tag,
        "digest": reference.digest,
    }


def same_version(tag: str, version: str) -> bool:
    """Whether ``tag`` may stand on ``version``: 1.31.3-alpine and 1.31 may on 1.31.3; words such as latest always."""
    wanted = tag.partition("-")[0].lstrip("v")
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)*", wanted):
        return True
    parts = wanted.split(".")
    return version.split(".")[: len(parts)] == parts


def why_not_built(name: str, source: str, repositories: Tuple[str, ...], version: str = "") -> Optional[str]:
    """Why ours must not be built under ``name``, or None when it may.

    Ours may carry the names it is known by (``repositories``, and a tag that does not claim another version),
    or any name where the user asked for it with ``source`` build. A digest names bytes that only a registry has.
    """
    reference = parse_reference(name)
    if reference.digest:
        return "a name with a digest can only be pulled"
    if source == "build":
        return None
    if reference.familiar not in repositories:
        ours = " or ".join(repositories)
        return f"only {ours} is built here, and nothing of ours runs under the name {reference.repository}"
    if version and not same_version(reference.tag, version):
        return f"version {version} is what can be built here, the name says {reference.tag}"
    return None


def decide(name: str, found: Optional[Dict[str, Any]], recipe: Dict[str, Any], source: str) -> List[str]:
    """What to try for one image, in order; an empty list means that what the host has is right.

    ``found``: the host's image as Engine.inspect tells it, or None; its ``label`` is the inputs that it was built
    from, None when it is not one of ours. The recipe's ``inputs`` is what would be built now, None when unknown here.
    """
    inputs, label = recipe.get("inputs"), found["label"] if found else None
    archive = recipe.get("archive")
    if source == "archive":
        ids = (archive or {}).get("ids") or []
        # What the controller cannot tell apart stays as it is.
        return [] if found is not None and (not ids or found["id"] in ids) else ["archive"]
    if source == "build":
        return [] if label is not None and inputs in (None, label) else ["build"]
    if found is not None:
        stale = label is not None and inputs is not None and label != inputs
        return ["build"] if stale and recipe.get("why_not") is None and source == "auto" else []
    otherwise = ["archive"] if archive else ["build"]
    if source == "auto" and parse_reference(name).repository.startswith(OWN_NAMESPACE):
        return otherwise
    return ["pull"] if source == "pull" else ["pull", *otherwise]


def out_of_reach(text: str) -> bool:
    """Whether docker's complaint is about the way to the registry, not about the image."""
    return _OUT_OF_REACH.search(text) is not None


def last_words(text: str, lines: int = 1) -> str:
    """The last ``lines`` that say something, without docker's preamble and colours, each at most 200 characters."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text).replace("Error response from daemon: ", "")
    said = [line.strip() for line in plain.splitlines() if line.strip() and not line.startswith("Removing intermed")]
    return " / ".join(line if len(line) <= 200 else f"{line[:130]} ... {line[-60:]}" for line in said[-lines:]) or (
        "no message"
    )


def failure_message(names: Dict[str, str], attempts: Dict[str, List[Dict[str, str]]]) -> str:
    """One message for all images that could not be had: {role: name}, {role: attempts}."""
    lines = [f"{len(attempts)} of {len(names)} images cannot be had:"]
    for role, tried in attempts.items():
        lines.append(f"  {role}: {names[role]}")
        lines += [f"    {attempt['how']}: {attempt['why']}" for attempt in tried]
    example = names[next(iter(attempts))]
    lines += [
        "Three ways out:",
        "  1. let the host reach a registry that has them (or name images it can reach in the manifest)",
        f"  2. put them there: docker save {example} | ssh HOST docker load; "
        "images.source: archive in the manifest does that",
        "  3. let them be built here: give what the lines above miss; "
        "images.source: build in the manifest builds ours under any name",
    ]
    return "\n".join(lines)


class EngineError(Exception):
    """The docker program or its engine cannot be used; the text says why and what to do."""


def _seen(text: str) -> Dict[str, Any]:
    """{"id", "label"} of one image, from what ``docker image inspect`` says of it."""
    found = json.loads(text)
    labels = (found.get("Config") or {}).get("Labels") or {}
    return {"id": found["Id"], "label": labels.get(LABEL)}


def inspect(names: List[str]) -> Optional[Dict[str, Dict[str, Any]]]:
    """{name: as Engine.inspect} where the host has them all, else None."""
    done = run(["docker", "image", "inspect", "--format", "{{json .}}", *names], timeout=15)
    lines = done.out.splitlines()
    return dict(zip(names, map(_seen, lines))) if done.ok and len(lines) == len(names) else None


class Engine:
    """The host's Docker engine, asked through its own program with argument lists and time limits."""

    def __init__(
        self, registry_timeout: float, pull_timeout: float, build_timeout: float, config: Optional[str] = None
    ) -> None:
        """``config``: folder of docker's own configuration, which holds credentials; None takes the user's."""
        self.registry_timeout = registry_timeout
        self.pull_timeout = pull_timeout
        self.build_timeout = build_timeout
        self.docker = ["docker", *(["--config", config] if config else [])]

    def architecture(self) -> str:
        """amd64, arm64 and so on. Raises EngineError when no engine answers."""
        done = run(["docker", "version", "--format", "{{.Server.Arch}}"], timeout=15)
        if done.status == 127:
            raise EngineError("the docker program is missing on this host: install Docker, or use the process runtime")
        if not done.ok or not done.out.strip():
            raise EngineError(
                f"the Docker engine does not answer: {last_words(done.text)}. "
                "Start it, or put this user into the group docker, or use the process runtime"
            )
        return done.out.strip()

    def inspect(self, name: str) -> Optional[Dict[str, Any]]:
        """{"id", "label"} of a present image, None when the host has none of that name. Raises EngineError."""
        done = run(["docker", "image", "inspect", "--format", "{{json .}}", name], timeout=15)
        if done.ok:
            return _seen(done.out)
        if "no such image" in done.err.lower():
            return None
        raise EngineError(f"the Docker engine does not say whether it has {name}: {last_words(done.text)}")

    def pull(self, name: str) -> Finished:
        """Pull ``name``. Status 124 when the registry says nothing, or the whole pull takes too long."""
        process = subprocess.Popen(
            [*self.docker, "pull", parse_reference(name).full],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            # docker prints its first line when the registry has answered, so a silent one costs seconds only.
            with selectors.DefaultSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ)  # type: ignore[arg-type]
                if not selector.select(self.registry_timeout):
                    return Finished(124, "", f"context deadline exceeded: no answer within {self.registry_timeout:g} s")
            output, _ = process.communicate(timeout=self.pull_timeout)
        except subprocess.TimeoutExpired:
            return Finished(124, "", f"not complete after {self.pull_timeout:g} s")
        finally:
            _end(process)
        return Finished(process.returncode, "", output.decode(errors="replace"))

    def remote(self, name: str) -> Finished:
        """Ask the registry whether it has ``name``, without pulling."""
        done = run([*self.docker, "manifest", "inspect", parse_reference(name).full], timeout=self.registry_timeout)
        if done.status == 124:
            return Finished(124, "", f"context deadline exceeded: no answer within {self.registry_timeout:g} s")
        return done

    def has_own_route(self) -> bool:
        """Whether the engine reaches registries by a mirror or proxy, which this program's own question would miss."""
        form = "[{{json .RegistryConfig.Mirrors}}, {{json .HTTPProxy}}, {{json .HTTPSProxy}}]"
        done = run(["docker", "info", "--format", form], timeout=15)
        return done.ok and any(json.loads(done.out))

    def build(self, name: str, inputs: str, tar: Path, arguments: Dict[str, str]) -> Finished:
        """Build ``name`` from the build context in ``tar``; the classic builder and BuildKit both take it."""
        labels = [f"{LABEL}={inputs}", f"{REPOSITORY_LABEL}={parse_reference(name).familiar}"]
        command = ["docker", "build", "--tag", name, "--force-rm"]
        command += [word for label in labels for word in ("--label", label)]
        for key, value in sorted(arguments.items()):
            command += ["--build-arg", f"{key}={value}"]
        started = time.monotonic()
        with tar.open("rb") as context:
            process = subprocess.Popen(
                [*command, "-"],
                stdin=context,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                output, _ = process.communicate(timeout=self.build_timeout)
            except subprocess.TimeoutExpired:
                return Finished(124, "", f"not complete after {time.monotonic() - started:.0f} s")
            finally:
                _end(process)
        return Finished(process.returncode, "", output.decode(errors="replace"))

    def load(self, path: Path) -> Finished:
        """Take the images of an archive in."""
        return run(["docker", "load", "--quiet", "--input", str(path)], timeout=self.build_timeout)


def login_words(username: str, password: str) -> str:
    """User name and password as docker keeps them: one word that is as secret as both."""
    return base64.b64encode(f"{username}:{password}".encode()).decode()


def credentials(registry: str, auth: str) -> str:
    """docker's config.json that logs in to ``registry`` with ``login_words`` and knows nothing else."""
    # The name under which docker keeps the default registry.
    key = "https://index.docker.io/v1/" if registry in (DEFAULT_REGISTRY, "index.docker.io") else registry
    return json.dumps({"auths": {key: {"auth": auth}}})


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a docker program that is still running, and the plugins it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


class Outcome(NamedTuple):
    """images: {role: {"name", "id" or None, "source": present|pulled|built|sent, "changed"}}; needed: roles to be
    built, for which a context must be brought; later: roles to be built in a further call; attempts: {role: attempts}
    of what is not there yet; unreachable: {registry: why}; awaited: roles whose archive must be brought."""

    images: Dict[str, Dict[str, Any]]
    needed: List[str]
    later: List[str]
    attempts: Dict[str, List[Dict[str, str]]]
    unreachable: Dict[str, str]
    awaited: List[str]


class Host:
    """One run's work on one host: asks each registry that is out of reach once, not once an image."""

    def __init__(self, engine: Engine, source: str, check: bool, unreachable: Dict[str, str]) -> None:
        self.engine = engine
        self.source = source
        self.check = check
        self.unreachable = dict(unreachable)

    def try_pull(self, name: str) -> Optional[str]:
        """Pull ``name`` (under check: ask for it). None when that went well, else why not."""
        registry = parse_reference(name).registry
        if registry in self.unreachable:
            return f"registry {registry} is out of reach ({self.unreachable[registry]})"
        done = self.engine.remote(name) if self.check else self.engine.pull(name)
        if done.ok or (self.check and (_ENGINE_DECIDES.search(done.text) or self.engine.has_own_route())):
            return None
        why = last_words(done.text)
        if out_of_reach(done.text):
            self.unreachable[registry] = why
            return f"registry {registry} is out of reach ({why})"
        return why

    def settle(
        self, names: Dict[str, str], recipes: Dict[str, Dict[str, Any]], tried: Dict[str, List[Dict[str, str]]]
    ) -> Outcome:
        """Look at every image, pull what can be pulled, and say what has to be built.

        ``tried``: attempts of an earlier call in the same run; what was pulled in vain is not pulled again.
        """
        images: Dict[str, Dict[str, Any]] = {}
        needed: List[str] = []
        later: List[str] = []
        awaited: List[str] = []
        attempts: Dict[str, List[Dict[str, str]]] = {}
        for role, name in names.items():
            recipe = recipes.get(role) or {"inputs": None, "why_not": "nothing is known here about building it"}
            found = self.engine.inspect(name)
            why_not = recipe.get("why_not")
            steps = decide(name, found, recipe, self.source)
            if not steps:
                images[role] = entry(name, found, "present")
                continue
            failed = list(tried.get(role, []))
            if "pull" in steps and not failed:
                why = self.try_pull(name)
                if why is None:
                    images[role] = entry(name, None if self.check else self.engine.inspect(name), "pulled")
                    continue
                failed.append({"how": "pull", "why": why})
            if "archive" in steps:
                got = self._from_controller(name, recipe.get("archive"))
                if "why" not in got:
                    images[role] = got
                    continue
                if got["why"] is None:
                    awaited.append(role)
                else:
                    failed.append({"how": "archive", "why": got["why"]})
            elif "build" in steps and why_not is None:
                (later if recipe.get("later") else needed).append(role)
                if self.check:
                    images[role] = entry(name, None, "built")
                    continue
            else:
                failed.append({"how": "build", "why": why_not or "images.source is pull"})
            attempts[role] = failed
        return Outcome(images, needed, later, attempts, self.unreachable, awaited)

    def _from_controller(self, name: str, archive: Optional[Dict[str, Any]]) -> Dict[str, Any]:
        """An image's entry from its archive, or {"why": why not, None while it has not arrived}."""
        if archive is None or archive["why_not"] is not None:
            return {"why": archive["why_not"] if archive else "the controller has none"}
        if self.check:
            return entry(name, None, "sent")
        return self.load(name, archive) if archive.get("path") else {"why": None}

    def load(self, name: str, archive: Dict[str, Any]) -> Dict[str, Any]:
        """Take in an archive that has arrived, and remove its file: the image's entry, or {"why": ...}.

        A file that is not what was sent is removed, so that the next run sends it anew; one that only could not be
        loaded stays, for then it need not be sent again.
        """
        path = Path(archive["path"])
        try:
            if sha256_of(path) != archive["sha256"]:
                path.unlink()
                return {"why": f"{path} arrived with another SHA-256 than it was sent with; run again to send it anew"}
            done = self.engine.load(path)
            if not done.ok:
                return {"why": f"docker load failed: {last_words(done.text, 2)}"}
            path.unlink()
        except OSError as error:
            return {"why": f"{path} cannot be read on the host: {error.strerror or error}"}
        found = self.engine.inspect(name)
        if found is None:
            return {"why": f"the archive was loaded, but it holds no image {name}"}
        if found["id"] not in archive["ids"]:
            return {
                "why": f"the archive was loaded, but {name} is {found['id']} then, not {' or '.join(archive['ids'])}"
            }
        return entry(name, found, "sent")

    def build(self, name: str, recipe: Dict[str, Any], arguments: Dict[str, str]) -> Dict[str, Any]:
        """Build one image: its entry, or {"why": ...} when that failed."""
        done = self.engine.build(name, recipe["inputs"], Path(recipe["context"]), arguments)
        found = self.engine.inspect(name) if done.ok else None
        if found is None or found["label"] != recipe["inputs"]:
            return {"why": "docker build failed: " + last_words(done.text, 3)}
        return entry(name, found, "built")


def entry(name: str, found: Optional[Dict[str, Any]], source: str) -> Dict[str, Any]:
    """What is told about one image."""
    return {"name": name, "id": found["id"] if found else None, "source": source, "changed": source != "present"}
