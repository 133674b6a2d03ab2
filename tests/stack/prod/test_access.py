"""HTTP: what a role may ask, on images whose "/" leads to another page; Orthanc itself refuses the rest."""

from __future__ import annotations

import dataclasses
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from ops.stack.terminal import drawn
from tests.contract.images import has_page
from tests.stack.dicom import as_file, ct_series
from tests.stack.forwarding import await_delivery
from tests.stack.harness import Node, Stack, docker
from tests.stack.web import opener_of

_FILE = as_file(ct_series(slices=1, size=16)[0])

#: What the viewer, the uploader and the client's forwarder may ask, in this order: a letter where one may.
_REQUESTS: tuple[tuple[str, str, str], ...] = (
    ("GET", "/", "vu-"),
    ("GET", "/system", "vuf"),
    ("GET", "/app/explorer.html", "vu-"),
    ("GET", "/statistics", "v--"),
    ("GET", "/patients", "v--"),
    ("GET", "/series?since=0&limit=10", "v-f"),
    ("GET", "/studies/{study}", "v-f"),
    ("GET", "/studies/{study}/archive", "v--"),
    ("GET", "/instances/{instance}/file", "v--"),
    ("GET", "/instances/{instance}/", "v--"),
    ("GET", "/changes?last", "--f"),
    ("GET", "/modalities", "---"),
    ("GET", "/peers", "---"),
    ("GET", "/instances/{instance}/attachments/dicom/md5", "v--"),
    ("GET", "/instances/{instance}/simplified-tags", "v-f"),
    ("GET", "/jobs", "--f"),
    ("GET", "/jobs/some", "--f"),
    ("GET", "/exports", "---"),
    ("GET", "/queries", "---"),
    ("GET", "/queries/some/answers", "--f"),
    ("GET", "/storage-commitment/2.25.1", "--f"),
    ("GET", "/tools/log-level", "---"),
    ("GET", "/tools/metrics-prometheus", "---"),
    ("HEAD", "/patients", "v--"),
    ("POST", "/tools/find", "v-f"),
    ("POST", "/tools/bulk-content", "v-f"),
    ("POST", "/instances", "-u-"),
    ("POST", "/tools/log-level", "---"),
    ("POST", "/instances/{instance}/attachments/dicom/verify-md5", "--f"),
    ("POST", "/jobs/some/cancel", "--f"),
    ("POST", "/jobs/some/pause", "---"),
    ("POST", "/modalities/server/echo", "---"),
    ("POST", "/modalities/server/store", "--f"),
    ("POST", "/modalities/server/query", "--f"),
    ("POST", "/modalities/server/move", "---"),
    ("POST", "/modalities/server/find-worklist", "---"),
    ("POST", "/studies/{study}/anonymize", "---"),
    ("POST", "/studies/{study}/modify", "---"),
    ("POST", "/instances/{instance}/modify", "---"),
    ("POST", "/tools/create-dicom", "---"),
    ("POST", "/tools/execute-script", "---"),
    ("POST", "/tools/reconstruct", "---"),
    ("PUT", "/modalities/server", "---"),
    ("PUT", "/peers/other", "---"),
    ("PUT", "/series/{series}/metadata/4999", "--f"),
    ("PUT", "/series/{series}/labels/seen", "---"),
    ("PUT", "/series/{series}/attachments/4999", "---"),
    ("DELETE", "/series/{series}/metadata/4999", "---"),
    ("DELETE", "/instances/{instance}", "---"),
    ("DELETE", "/studies/{study}", "---"),
    ("DELETE", "/changes", "---"),
)
#: An uploader, who sees nothing, gets nothing by these.
_TRICKS: tuple[tuple[str, str, Mapping[str, str]], ...] = (
    ("GET", "//patients", {}),
    ("GET", "/app/../patients", {}),
    ("GET", "/app/%2e%2e/patients", {}),
    ("GET", "/app%2f..%2fpatients", {}),
    ("GET", "/PATIENTS", {}),
    ("GET", "/patients/", {}),
    ("GET", "/patients?_method=DELETE", {}),
    ("GET", "/system?_method=DELETE", {}),
    ("POST", "/instances/../tools/find", {}),
    ("POST", "/instances", {"X-HTTP-Method-Override": "DELETE"}),
    ("GET", "/patients", {"X-Forwarded-User": "orthanc"}),
)


@pytest.fixture(scope="module")
def users(stack: Stack) -> dict[str, Node]:
    """The client, as each of its users sees it."""
    passwords = {user: stack.secrets[f"userPassword.client.{user}"] for user in ("orthanc", "looker", "bringer")}
    passwords["forwarder"] = stack.secrets["forwarderPassword.client"]
    names = {"a": "orthanc", "v": "looker", "u": "bringer", "f": "forwarder"}
    return {letter: dataclasses.replace(stack.node("client"), login=(name, passwords[name])) for letter, name in names.items()}


@pytest.fixture(scope="module")
def held(stack: Stack) -> Iterator[dict[str, str]]:
    """An image that both nodes hold, gone after these tests: its identifiers, and those of its series and study."""
    made = stack.node("client").post("/instances", _FILE)
    await_delivery(stack, "client", "server")
    yield {"instance": made["ID"], "series": made["ParentSeries"], "study": made["ParentStudy"]}
    await_delivery(stack, "client", "server")
    for node in stack.nodes().values():
        node.ask(f"/studies/{made['ParentStudy']}", method="DELETE")


def test_each_request_by_each_role(users: dict[str, Node], held: dict[str, str], artifacts: Path) -> None:
    rows, wrong = [], []
    # An admin may do all of it, and some of it would change the stack.
    others = {letter: node for letter, node in users.items() if letter != "a"}
    for method, path, may in _REQUESTS:
        told = []
        for letter, node in others.items():
            status, _ = node.ask(path.format(**held), b"{}" if method in ("POST", "PUT") else None, method=method)
            told.append("refused" if status == 403 else "allowed")
            assert status != 401, (method, path, letter)
        wrong += [(method, path, letter) for letter, one in zip(others, told, strict=True) if (one == "allowed") is not (letter in may)]
        rows.append((method, path, *told))
    (artifacts / "roles.txt").write_text(drawn(("method", "path", "viewer", "uploader", "forwarder"), rows) + "\n")
    assert wrong == []
    assert users["a"].get(f"/instances/{held['instance']}")["ID"] == held["instance"], "something was deleted"


def test_what_a_role_is_for_works(users: dict[str, Node], held: dict[str, str]) -> None:
    assert users["v"].post("/tools/find", {"Level": "Study", "Query": {"PatientID": "PHANTOM-1"}, "Expand": True})
    assert users["v"].read(f"/instances/{held['instance']}/file")[128:132] == b"DICM"
    assert users["u"].post("/instances", _FILE)["ID"] == held["instance"]
    assert users["a"].echoes("server")


@pytest.mark.parametrize(("method", "path", "headers"), _TRICKS)
def test_no_other_way_of_asking_helps(
    users: dict[str, Node], *, held: dict[str, str], method: str, path: str, headers: Mapping[str, str]
) -> None:
    body = b'{"Level": "Patient", "Query": {}}' if method == "POST" else None
    status, answer = users["u"].ask(path, body, method=method, headers=headers)
    assert status != 200 or not _tells(answer), (status, answer[:200])
    assert users["a"].get(f"/instances/{held['instance']}")["ID"] == held["instance"]


def test_a_script_and_a_file_are_refused_to_the_admin_as_well(users: dict[str, Node], held: dict[str, str]) -> None:
    assert users["a"].ask("/tools/execute-script", b"print(1)")[0] == 403
    assert users["a"].ask(f"/instances/{held['instance']}/export", b"/tmp/file")[0] in (403, 404)
    assert users["a"].ask("/webdav/", method="PROPFIND", headers={"Depth": "1"})[0] in (400, 404)


def _tells(answer: bytes) -> bool:
    """Whether an answer is a list of something."""
    return answer.strip().startswith(b"[") and answer.strip() != b"[]"


def test_the_probe_costs_what_upstreams_does(stack: Stack) -> None:
    """Else nothing would be proved of how often it runs."""
    code = "import os, subprocess; subprocess.run('/probes/test-aliveness.py', check=True); print(sum(os.times()[2:4]))"
    assert float(docker("exec", f"{stack.prefix}-server", "python3", "-c", code)) > 0.15


@pytest.mark.skipif(not has_page(), reason="no C compiler here: the contract image has no page of its own")
@pytest.mark.parametrize("letter", ["a", "v", "u"])
def test_the_root_leads_to_another_page(users: dict[str, Node], letter: str) -> None:
    node = users[letter]
    request = urllib.request.Request(f"{node.url}/", headers={"Authorization": node.authorization})
    with opener_of(node.trust, node.name).open(request) as answer:
        assert (answer.url, b"Another page" in answer.read()) == (f"{node.url}/ui/app/", True)
