"""The components in a program of one's own: few arguments make a safe node, and Pulumi's options are honoured."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import Any

import pulumi
import pytest

from components.container import check_password
from tests.program.harness import ROOT, SECRET, Run
from tests.program.mocked import run_mocked


def run_example() -> Run:
    """examples/own-program under mocks."""
    run = Run()
    run_mocked({}, {"password": SECRET}, "course", root=ROOT / "examples" / "own-program", main="program.py", run=run)
    return run


def run_text(folder: Path, text: str) -> Run:
    """A program of a few lines, in which `node(name, **options of Pulumi's)` makes a node from the arguments that are required."""
    begin = """
        import pulumi, pulumi_docker
        import components as orthanc
        net = orthanc.private_network("net").name
        def node(name, aet="A", port=8042, **opts):
            users = {"someone": orthanc.User("admin", "pw")}
            args = orthanc.OrthancNodeArgs(aet=aet, image="sha256:1", network=net, users=users, http_port=port, dicom_port=port + 1)
            return orthanc.OrthancNode(name, args, pulumi.ResourceOptions(**opts))
        """
    (folder / "__main__.py").write_text(textwrap.dedent(begin) + textwrap.dedent(text))
    run = Run()
    run_mocked({}, {}, "course", root=folder, run=run)
    return run


def test_a_node_from_the_arguments_that_are_required_is_locked(tmp_path: Path) -> None:
    run = run_text(tmp_path, 'node("a")')
    options = run.configuration("a")
    assert {value for key, value in options.items() if key.startswith("DicomAlwaysAllow")} == {False}
    assert (options["DicomCheckCalledAet"], options["AuthenticationEnabled"], options["SyncStorageArea"]) == (True, True, True)
    assert (options["ExecuteLuaEnabled"], options["RestApiWriteToFileSystemEnabled"], options["DicomModalities"]) == (False, False, {})
    assert options["DatabaseServerIdentifier"] == "orthanc-stack-course-a"
    container = run.one("a-container").inputs
    assert {port["ip"] for port in container["ports"]} == {"127.0.0.1"}
    assert container["capabilities"] == {"adds": ["CAP_DAC_OVERRIDE"], "drops": ["ALL"]}
    assert container["securityOpts"] == ["no-new-privileges:true"]
    assert container["destroyGraceSeconds"] == 60
    assert (container["memory"], container["logOpts"]) == (2048, {"max-file": "3", "max-size": "10m"})
    assert json.loads(run.files("a-container")["/run/secrets/orthanc.json"]["content"]) == {"RegisteredUsers": {"someone": "pw"}}


def test_its_own_options_lie_over_the_baseline_and_under_what_is_computed(tmp_path: Path) -> None:
    run = run_text(
        tmp_path,
        """
        users = {"x": orthanc.User("admin", "pw")}
        args = orthanc.OrthancNodeArgs(aet="A", image="sha256:1", network=net, users=users, http_port=1, dicom_port=2,
                                       options={"StableAge": 33})
        orthanc.OrthancNode("a", args)
        """,
    )
    options = run.configuration("a")
    assert (options["StableAge"], options["DicomAet"], options["DicomCheckCalledAet"]) == (33, "A", True)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ('options={"DicomAet": "MISTAKE"}', "options: DicomAet is computed"),
        ('options={"DicomModalities": {"evil": ["EVIL", "h", 1]}}', "options: DicomModalities is computed"),
        ('options={"AuthenticationEnabled": False}', "options: AuthenticationEnabled is computed"),
        ("users={}", "one at least is an admin"),
        ('users={"x": orthanc.User("Admin", "pw")}', "'Admin' is no role"),
        ('users={"o\'brien": orthanc.User("admin", "pw")}', "is no user name"),
        ('peers={"p": orthanc.Peer(orthanc.DicomEndpoint("P", "h"), frozenset({"AllowStoer"}))}', "'AllowStoer' is no permission"),
    ],
)
def test_what_a_stack_file_could_not_say_is_refused(tmp_path: Path, more: str, told: str) -> None:
    with pytest.raises(pulumi.RunError, match=re.escape(told)):
        run_text(
            tmp_path,
            f"""
            known = dict(aet="A", image="sha256:1", network=net, users={{"x": orthanc.User("admin", "pw")}}, http_port=1, dicom_port=2)
            orthanc.OrthancNode("a", orthanc.OrthancNodeArgs(**(known | dict({more}))))
            """,
        )


def test_a_link_to_no_peer_of_the_node_is_refused(tmp_path: Path) -> None:
    with pytest.raises(pulumi.RunError, match="Forwarder f: links: b: no peer of the node a"):
        run_text(
            tmp_path,
            """
            from configs.settings import LinkSettings
            link = LinkSettings(to="b")
            orthanc.Forwarder("f", orthanc.ForwarderArgs(image="sha256:1", network=net, node=node("a"), links=[link], password="pw"))
            """,
        )


def test_a_password_that_an_image_would_misread_is_refused() -> None:
    assert check_password("Aa0_.~+=-") == "Aa0_.~+=-"
    for text in ("", "two words", "a`echo`b", "it's", "$HOME", "a@b/c"):
        with pytest.raises(pulumi.RunError, match="A password is empty or holds a character that the images would misread"):
            check_password(text)


def test_a_class_that_is_used_twice_makes_names_that_do_not_collide() -> None:
    run = run_example()
    for kind in ("Container", "Volume", "Network"):
        found = [resource.inputs["name"] for resource in run.of_type(kind)]
        assert len(set(found)) == len(found) >= 3
        assert all(name.startswith("orthanc-stack-course-") for name in found)
    hosts = {run.configuration(name)["PostgreSQL"]["Host"] for name in ("trial-a", "trial-b")}
    assert hosts == {"trial-a-db", "trial-b-db"}


def test_the_example_wires_both_ends_from_endpoints_and_tells_no_secret() -> None:
    run = run_example()
    archive, gateway = (run.configuration(name)["DicomModalities"] for name in ("trial-a", "gateway"))
    assert (archive["gateway"]["AET"], archive["gateway"]["Host"]) == ("GATEWAY", "gateway")
    assert (gateway["trial-a"]["AET"], gateway["trial-a"]["Host"]) == ("TRIAL_A", "trial-a")
    assert ("uploads", "trial-a-dicom") in run.input_edges("gateway-container")
    assert SECRET not in json.dumps([dict(resource.inputs) for resource in run.resources.values() if resource.type.count(":index:")])
    assert sorted(run.outputs) == ["dicom", "urls"]


@pytest.mark.parametrize(("protect", "data"), [("True", True), ("False", False), ("None", False)])
def test_protect_is_for_the_data_and_not_for_the_container(tmp_path: Path, protect: str, data: bool) -> None:
    run = run_text(tmp_path, f'node("a", protect={protect})')
    protected = {name: (run.one(name).request.protect, run.one(name).request.retainOnDelete) for name in ("a-data", "a-container")}
    assert protected == {"a-data": (data, data), "a-container": (False, False)}


def test_a_volume_is_kept_as_its_caller_says(tmp_path: Path) -> None:
    run = run_text(
        tmp_path,
        """
        for name, protect, retain in (("a", False, True), ("b", True, None), ("c", True, False)):
            orthanc.data_volume(name, data_format="sqlite", opts=pulumi.ResourceOptions(protect=protect, retain_on_delete=retain))
        """,
    )
    assert [run.one(name).request.retainOnDelete for name in "abc"] == [True, True, False]


def test_a_provider_is_handed_down(tmp_path: Path) -> None:
    run = run_text(tmp_path, 'node("a", provider=pulumi_docker.Provider("elsewhere", host="ssh://elsewhere"))')
    for name in ("a-data", "a-container"):
        assert "::elsewhere::" in run.one(name).request.provider


def test_types_of_all_names_are_exported() -> None:
    import components  # noqa: PLC0415

    found: dict[str, Any] = {name: getattr(components, name) for name in components._WHERE}
    assert {name for name, value in found.items() if value is None} == set()
    with pytest.raises(AttributeError, match="no attribute 'Archive'"):
        _ = components.Archive  # type: ignore[attr-defined]
