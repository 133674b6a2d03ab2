"""The policy pack through the real command: what it refuses. That it lets the project's own stacks pass is claimed of each (claims.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stack.harness import Done, Stack, copy_program

pytestmark = pytest.mark.slow("previews of programs of their own, with the pack: 30 s")

#: A container of somebody's own beside the components: the secret has no name that gives it away.
_OF_ONES_OWN = """
import pulumi_docker
pulumi_docker.Container(
    "own", name="own", image="busybox:1.37", envs=[pulumi.Output.secret("GREETING=hunter2")], destroy_grace_seconds=10,
    log_opts={"max-size": "1m", "max-file": "1"}, healthcheck=pulumi_docker.ContainerHealthcheckArgs(tests=["CMD", "true"]))
"""

#: A program whose one container has a variable that no preview knows, because no image has been pulled yet.
_KNOWN_LATER = """
import pulumi_docker
import components
from images import local_image

image = components.image("orthanc", local_image("orthanc")).image_id
pulumi_docker.Container(
    "own", image=image, envs=[image.apply(lambda known: f"OWN_PASSWORD={known}")], destroy_grace_seconds=10,
    log_opts={"max-size": "1m", "max-file": "1"}, healthcheck=pulumi_docker.ContainerHealthcheckArgs(tests=["CMD", "true"]))
"""


def judged(stack: Stack) -> Done:
    return stack.try_preview(policy_packs=[str(stack.program / "policy")])


def rules_broken(done: Done) -> set[str]:
    return {line.split()[2] for line in done.text.splitlines() if line.strip().startswith("- [mandatory]")}


def test_an_adminer_below_the_floor_fails_the_preview(program: Path) -> None:
    stack = Stack(program, "dev", images={"source": "registry", "adminer": "adminer:5.5.0"})
    done = judged(stack)
    assert not done.ok
    assert rules_broken(done) == {"version-floor"}
    assert "images-adminer: the image adminer:5.5.0 is older than Adminer 5.5.1" in done.text


def test_a_secret_variable_of_a_container_beside_the_components_fails_the_preview(tmp_path: Path) -> None:
    program = copy_program(tmp_path)
    with (program / "__main__.py").open("a") as main:
        main.write(_OF_ONES_OWN)
    stack = Stack(program, "dev")
    done = judged(stack)
    assert not done.ok
    assert rules_broken(done) == {"no-password-in-environment"}
    assert "own: one of its environment variables is a secret of Pulumi's" in done.text
    assert "hunter2" not in done.text


def test_what_a_preview_does_not_know_is_refused_by_the_up_before_the_container_is_made(tmp_path: Path) -> None:
    program = copy_program(tmp_path)
    (program / "__main__.py").write_text(_KNOWN_LATER)
    stack = Stack(program, "dev")
    try:
        assert judged(stack).ok
        done = stack.try_up(policy_packs=[str(program / "policy")])
        assert not done.ok
        assert rules_broken(done) == {"no-password-in-environment"}
        assert "own" not in done.steps
        assert '"docker:index/container:Container"' not in stack.state()
    finally:
        stack.wipe()
