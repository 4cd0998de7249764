"""A decision without a server: a one-time OPA evaluates policies that are not installed.

What it answers is what a running OPA with these policies would answer now, so a dry run shows the decision of the
policies that a real run would install first. It leaves nothing behind and has no decision id.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List

from .command import Finished, placed, run
from .opa import UnavailableError, check_domains, classify, finite, unavailable

# Also where OPA's container has to be started for it.
TIMEOUT_SECONDS = 60.0
_NOT_FOUND = 127


def evaluate(argv: List[str], files: List[Dict[str, str]], domain: str, question: Dict[str, Any]) -> Dict[str, Any]:
    """Decide ``domain`` on ``question`` by the policies in ``files`` ({"path", "content"}); as `opa.ask` answers.

    ``argv`` is a program that evaluates, as ``opa eval`` does, the query that is put behind it, with the question on
    its standard input; ``%s`` in it stands for the folder of the policies. Raises ValueError for a domain that is none.
    """
    check_domains([domain])
    asked = finite(question)
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="swiftdeploy-"))
    try:
        # A program in a container is another user than the one that runs this module.
        folder.chmod(0o755)
        for entry in files:
            target = folder / entry["path"]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(entry["content"], encoding="utf-8")
        words = placed(argv, folder)
        decision = classify(domain, 200, _answer(words, domain, asked))
    except UnavailableError as problem:
        decision = unavailable("", problem)
        decision["reasons"] = [f"the dry decision for domain {domain}: {problem.detail}"]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    decision["input"] = asked
    decision["duration_ms"] = round((time.monotonic() - started) * 1000, 1)
    return decision


def _answer(words: List[str], domain: str, asked: Any) -> bytes:
    """What a server would send. Raises UnavailableError where the program gives no answer."""
    done = run(
        [*words, f"data.swiftdeploy.{domain}.decision"],
        timeout=TIMEOUT_SECONDS,
        given=json.dumps(asked, allow_nan=False),
    )
    if done.status == _NOT_FOUND:
        raise UnavailableError("connection", f"{words[0]} is not on this host yet")
    if not done.ok:
        raise UnavailableError("connection", f"OPA could not evaluate the policies: {_errors(done)}")
    try:
        answer = json.loads(done.out)
        results = answer.get("result", [])
        document = {"result": results[0]["expressions"][0]["value"]} if results else {}
    except (ValueError, AttributeError, TypeError, LookupError):
        raise UnavailableError("not_json", f"OPA answered something else: {done.out[:100]!r}") from None
    return json.dumps(document).encode()


def _errors(done: Finished) -> str:
    """What OPA complains of as ``file:line: what``, the first three; else what the program said."""
    try:
        told = [
            "{}:{}: {}".format(one["location"]["file"], one["location"]["row"], one["message"])
            for one in json.loads(done.text)["errors"]
        ]
    except (ValueError, TypeError, LookupError):
        told = [done.text]
    return " ".join("; ".join(told[:3]).split())[:500]
