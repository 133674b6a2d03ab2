"""A stack like dev, and one like prod, with TLS, on the contract images: up, verified, and nothing to be done afterwards."""

from __future__ import annotations

import dataclasses
import json
import urllib.request

import pytest

from configs.secrets import user_key
from ops.containers import docker_runner
from ops.drift.command import look_for_drift
from ops.probes import opener_of
from ops.verify import report, verify
from tests.contract.images import IMAGES, has_page
from tests.stack.conftest import Dev
from tests.stack.dicom import as_file, ct_series, dataset_bytes
from tests.stack.forwarding import ask_commitment, await_delivery
from tests.stack.harness import Stack, Watch, docker
from tests.stack.sending import operated_on


@pytest.fixture(scope="module", params=["dev", "prod"])
def stack(request: pytest.FixtureRequest) -> Stack:
    """Each of the two."""
    deployed = request.getfixturevalue(request.param)
    return deployed.stack if isinstance(deployed, Dev) else deployed


def test_it_runs_them_and_is_verified(stack: Stack) -> None:
    used = {docker("inspect", "--format", "{{.Image}}", one) for one in stack.containers().values()}
    assert used <= {docker("image", "inspect", "--format", "{{.Id}}", name) for name in IMAGES.values()}
    text, status = report(verify(stack.outputs(), stack.prefix, docker_runner(["docker"])))
    assert status == 0, text


def test_a_second_up_does_nothing(stack: Stack) -> None:
    before = stack.containers()
    assert stack.up().steps == {}
    assert stack.containers() == before


def test_nor_does_one_after_a_refresh_with_the_policy_pack(stack: Stack) -> None:
    """Which knows a mirror's images by the last part of their names."""
    stack.refresh()
    assert stack.up(policy_packs=[str(stack.program / "policy")]).steps == {}


def test_nothing_drifted(stack: Stack) -> None:
    with operated_on(stack) as operated:
        assert look_for_drift(operated) == []


def test_the_probe_costs_what_upstreams_does(stack: Stack) -> None:
    """Else nothing would be proved of how often it runs."""
    code = "import os, subprocess; subprocess.run('/probes/test-aliveness.py', check=True); print(sum(os.times()[2:4]))"
    assert float(docker("exec", f"{stack.prefix}-server", "python3", "-c", code)) > 0.15


@pytest.mark.skipif(not has_page(), reason="no C compiler here: the contract image has no page of its own")
def test_the_root_leads_to_another_page_for_every_role(stack: Stack) -> None:
    node = stack.node("client")
    for user in stack.outputs()["users"]["client"]:
        asking = dataclasses.replace(node, login=(user, stack.secrets[user_key("client", user)]))
        request = urllib.request.Request(f"{node.url}/", headers={"Authorization": asking.authorization})
        with opener_of(node.trust, node.name).open(request) as answer:
            assert (answer.url, b"Another page" in answer.read()) == (f"{node.url}/ui/app/", True)


def test_an_image_is_forwarded_byte_for_byte_and_committed(stack: Stack) -> None:
    image = ct_series(slices=1, size=64)[0]
    client, server = stack.node("client"), stack.node("server")
    made = client.post("/instances", as_file(image))
    await_delivery(stack, "client", "server")
    at_server = server.read(f"/instances/{made['ID']}/file")
    assert dataset_bytes(at_server) == dataset_bytes(as_file(image))
    answer = ask_commitment(client, "server", [image])
    assert (answer.kept, answer.failed) == ({str(image.SOPInstanceUID)}, {})
    for node in (client, server):
        node.ask(f"/studies/{made['ParentStudy']}", method="DELETE")


def test_it_stops_by_itself(prod: Stack) -> None:
    watches = {name: Watch(container) for name, container in prod.containers().items() if name != "db-roles"}
    assert prod.destroy(exclude_protected=True).ok
    assert {name: watch.exit_code() for name, watch in watches.items()} == dict.fromkeys(watches, 0)
