"""What is claimed of every stack, whatever its images and settings. Each stack that tests share imports these classes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from pydicom.dataset import FileDataset

from configs.secrets import is_private_key
from images import local_image
from ops.drift.command import look_for_drift
from ops.stack.terminal import drawn
from ops.stack.verify import report, verify
from tests.stack.dicom import PATIENT, as_file, ct_series, dataset_bytes
from tests.stack.forwarding import ask_commitment, await_delivery
from tests.stack.harness import Stack, docker
from tests.stack.sending import operated_on

#: Files that everybody may read, in containers where nobody runs but the one who needs it: PostgreSQL (its entry point reads its file as
#: root and as postgres), the forwarder; and of a node what the registry's image merges.
_READ_BY_ALL = ("/run/secrets/postgres-password", "/run/secrets/forwarder.json")
_READ_BY_ALL_UPSTREAM = "/tmp/orthanc.json"
#: Where the image, the deployment or a program may have written a secret.
_FOLDERS = ("/etc", "/home", "/root", "/run", "/tmp", "/usr/local", "/var")


class TestDeployed:
    """It serves, a second deployment does nothing, and images go through it as they were sent."""

    def test_it_is_verified(self, stack: Stack) -> None:
        with operated_on(stack) as operated:
            results = verify(operated, stack.outputs())
        assert report(results) == 0, results
        chosen = {docker("image", "inspect", "--format", "{{.Id}}", image) for image in _images(stack)}
        assert {docker("inspect", "--format", "{{.Image}}", one) for one in stack.containers().values()} == chosen

    def test_a_second_up_does_nothing(self, stack: Stack) -> None:
        before = stack.containers()
        assert stack.up().steps == {}
        assert stack.containers() == before

    def test_nor_does_one_after_a_refresh_with_the_policy_pack(self, stack: Stack) -> None:
        """The pack knows a mirror's images by the last part of their names."""
        stack.refresh()
        done = stack.up(policy_packs=[str(stack.program / "policy")])
        assert done.steps == {}
        assert "✅ orthanc-stack@v1.0.0" in done.text
        assert "can't run policy" not in done.text

    def test_nothing_drifted(self, stack: Stack) -> None:
        with operated_on(stack) as operated:
            assert look_for_drift(operated) == []

    def test_an_image_is_forwarded_byte_for_byte_and_committed(self, stack: Stack) -> None:
        with _sent(stack) as (image, identifier):
            at_server = stack.node("server").read(f"/instances/{identifier}/file")
            assert dataset_bytes(at_server) == dataset_bytes(as_file(image))
            answer = ask_commitment(stack.node("client"), "server", [image])
            assert (answer.kept, answer.failed) == ({str(image.SOPInstanceUID)}, {})


class TestSecrets:
    """No secret shows where somebody else could read it."""

    def test_none_is_in_any_place(self, stack: Stack, artifacts: Path) -> None:
        everything = _places(stack) | {"all that Pulumi has printed": "\n".join(stack.printed)}
        empty = [place for place, text in everything.items() if len(text) < 100]
        assert empty == []
        assert len(everything["the state, its backups and history"]) > 100_000
        looked_for = {key for key, _ in stack.words()}
        assert {"dbPassword", "dbPassword.server", "userPassword.client.orthanc", "forwarderPassword.client"} <= looked_for
        private_keys = set(filter(is_private_key, looked_for))
        assert len(private_keys) >= (4 if stack.like == "prod" else 0), "the authority's, the nodes', the database's"
        hits = {place: stack.secrets_in(text) for place, text in everything.items()}
        rows = [(place, str(len(text)), str(len(hits[place]))) for place, text in everything.items()]
        name = f"secrets-{stack.like}{'-upstream' if upstream(stack) else ''}.txt"
        (artifacts / name).write_text(drawn(("place", "characters", "hits"), rows) + "\n")
        # The registry's PostgreSQL has its password in its server's environment: tests/contract/README.md.
        known = {"/proc/1/environ": ["dbPassword"]} if upstream(stack) else {}
        assert {place: keys for place, keys in hits.items() if keys} == known

    def test_no_patient_is_in_a_log(self, stack: Stack) -> None:
        with _sent(stack):
            logs = "".join(docker("logs", one) for one in stack.containers().values())
        assert "Orthanc has started" in logs
        assert [name for name in (PATIENT, PATIENT.partition("^")[0]) if name in logs] == []

    def test_a_forwarders_is_in_files_of_it_and_its_node_alone(self, stack: Stack) -> None:
        """In /tmp the node's image puts the file that it merges for Orthanc, for its user alone."""
        password = stack.secrets["forwarderPassword.client"]
        found: dict[tuple[str, str], str] = {}
        for name, container in _running(stack).items():
            files = docker("exec", "--user", "0", container, "grep", "-rlsF", password, *_FOLDERS, check=False).split()
            found |= {(name, file): docker("exec", container, "stat", "-c", "%a", file) for file in files}
        assert found == {
            ("client", "/run/secrets/orthanc.json"): "400",
            ("client", "/tmp/orthanc.json"): "644" if upstream(stack) else "600",
            ("client-forwarder", "/run/secrets/forwarder.json"): "444",
        }

    def test_the_outputs_give_them_to_who_may_decrypt_them(self, stack: Stack) -> None:
        assert "orthanc" in stack.outputs()["users"]["client"]
        users = {user: stack.secrets[f"userPassword.client.{user}"] for user in stack.outputs()["nodes"]["client"]["roles"]}
        assert stack.outputs()["users"]["client"] == users


def _images(stack: Stack) -> list[str]:
    """The images that the outputs tell."""
    said = stack.outputs()["images"]
    return [said[role] for role in ("orthanc", "postgres", "adminer") if said[role]]


@contextlib.contextmanager
def _sent(stack: Stack) -> Iterator[tuple[FileDataset, str]]:
    """An image that both nodes hold, for a while, and its identifier in Orthanc."""
    image = ct_series(slices=1, size=64)[0]
    made = stack.node("client").post("/instances", as_file(image))
    await_delivery(stack, "client", "server")
    try:
        yield image, made["ID"]
    finally:
        for name in ("client", "server"):
            stack.node(name).ask(f"/studies/{made['ParentStudy']}", method="DELETE")


def upstream(stack: Stack) -> bool:
    """Whether it runs on images that do as the registry's."""
    running = docker("inspect", "--format", "{{.Image}}", f"{stack.prefix}-client")
    return running != docker("image", "inspect", "--format", "{{.Id}}", local_image("orthanc"), check=False)


def _running(stack: Stack) -> dict[str, str]:
    """The containers, less the one that has ended."""
    return {name: one for name, one in stack.containers().items() if name != "db-roles"}


def _places(stack: Stack) -> dict[str, str]:
    """Place -> what somebody reads there, after a deployment failed and a change of secrets was previewed."""
    main = stack.program / "__main__.py"
    before = main.read_text()
    try:
        main.write_text(f"{before}\nraise KeyError('a fault of the program')\n")
        failed = stack.try_up()
    finally:
        main.write_text(before)
    assert not failed.ok
    assert "Traceback" in failed.text
    with stack.trying():
        stack.secrets |= {key: f"another-{number}-5f1c" for number, key in enumerate(stack.secrets) if not is_private_key(key)}
        done = stack.preview(diff=True)
        assert {"client-container", "client-forwarder-container", "server-container", "db-roles"} <= done.replaced
        places = {"preview --json": stack.command("preview", "--json").text}
    stack.preview(expect_no_changes=True)  # and the stack file is as it was
    places["stack output"] = stack.command("stack", "output", "--json").text
    places["stack export"] = stack.command("stack", "export").text
    places["the state, its backups and history"] = stack.kept_files()
    places["the stack file"] = stack.file.read_text()
    containers = stack.containers()
    shown = docker("inspect", *containers.values(), *stack.networks())
    places["docker inspect"] = shown
    images = sorted({one["Image"] for one in json.loads(shown) if "Image" in one})
    places["docker history"] = "".join(docker("history", "--no-trunc", image) for image in images)
    places["docker logs"] = "".join(docker("logs", one) for one in containers.values())
    return places | _inside(stack)


def _inside(stack: Stack) -> dict[str, str]:
    """What somebody reads in the containers that run."""
    environments, commands, files = "", "", ""
    wanted = [argument for _, word in stack.words() for argument in ("-e", word)]
    known = (*_READ_BY_ALL, *([_READ_BY_ALL_UPSTREAM] if upstream(stack) else []))
    for one in _running(stack).values():
        # Its first process's user: root without capabilities may not read another's environment.
        user = docker("exec", one, "stat", "-c", "%u", "/proc/1")
        environments += docker("exec", "--user", user, one, "cat", "/proc/1/environ")
        commands += docker("top", one, "-eo", "pid,args")
        # As nobody: what a process reads that broke out of another one's rights.
        read = docker(
            *("exec", "--user", "65534:65534", one, "grep", "-rsF", *wanted, "-e", "root:x:0:0", *_FOLDERS),
            check=False,
        )
        files += "".join(line for line in read.splitlines(keepends=True) if not line.startswith(known))
    return {"/proc/1/environ": environments, "command lines": commands, "files that other users read": files}
