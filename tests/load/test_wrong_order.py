"""The same load against a rollout whose order is wrong on purpose: then requests are lost, and counted."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from load.stack import DRAIN_SECONDS, Generator, Stack, Timeline


def replace_once(path: Path, text: str, by: str) -> None:
    """Replace ``text``, which must be there exactly once, in the file at ``path``."""
    content = path.read_text()
    assert content.count(text) == 1, f"{path} does not have once what this test changes: {text!r}"
    path.write_text(content.replace(text, by))


def stop_before_the_switch(folder: Path) -> None:
    """Make the rollout of the workspace in ``folder`` stop the slot that serves before the traffic has moved."""
    move = "- name: Move the traffic\n"
    stop = """\
- name: Stop the slot that serves, too early
  swiftdeploy_slot:
    stack: "{{ rollout_stack }}"
    state: stopped
    slot: "{{ rollout_plan.other }}"
  when: rollout_observed.slots[rollout_plan.other].running

"""
    replace_once(folder / "roles" / "rollout" / "tasks" / "main.yml", move, stop + move)


def do_not_wait_for_old_workers(folder: Path) -> None:
    """Make the switch of the workspace in ``folder`` stop a slot while old workers and it still have requests."""
    route = folder / "library" / "swiftdeploy_route.py"
    replace_once(route, "drained = idle(runtime, moved, params)", "drained = True")


# What is counted is the same in both runtimes; the campaign (make soak) counts in both.
CASES = [("process", stop_before_the_switch), ("process", do_not_wait_for_old_workers)]
if "SWIFTDEPLOY_SWITCHES" in os.environ:
    CASES.append(("docker", stop_before_the_switch))


@pytest.mark.slow
@pytest.mark.parametrize(("stack", "spoil"), CASES, indirect=["stack"])
def test_a_wrong_order_is_counted(stack: Stack, spoil: Callable[[Path], None], tmp_path: Path) -> None:
    build = tmp_path / "image"
    build.mkdir()
    spoil(stack.workspace.folder)
    stack.start("1.0.0", build)
    timeline = Timeline()
    with Generator(stack.workspace.url, tmp_path, 300, *stack.key_words, "--drain", str(DRAIN_SECONDS)) as generator:
        timeline.run("deploy", "2.0.0 stable", stack.deploy, "2.0.0")
        result = generator.finish()
    assert stack.serving() == "2.0.0 stable"
    print(f"{stack.workspace.runtime}: {result['failed']} of {result['sent']} failed, ", end="")
    print({kind: counts["what"] for kind, counts in result["kinds"].items() if counts["what"]}, end=", ")
    print(f"{result['websockets']['cut']} WebSockets cut")
    lost = result["failed"] + result["websockets"]["cut"]
    assert lost > 0
    assert set(timeline.blame(result)) == {"deploy 1"}
