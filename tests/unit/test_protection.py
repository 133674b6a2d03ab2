"""What weakens a node in prod is said on purpose, or refused."""

from __future__ import annotations

import pytest

from configs.orthanc_options import options_of
from configs.protection import PROTECTIONS
from tests.unit.stacks import node, problems_of, settings_of, stack

#: A value that weakens, for each option.
WEAK = {
    "DeidentifyLogs": False,
    "DicomCheckCalledAet": False,
    "DicomTlsMinimumProtocolVersion": 3,
    "ExecuteLuaEnabled": True,
    "HttpsVerifyPeers": False,
    "LimitFindInstances": 0,
    "LimitFindResults": 0,
    "MaximumFileSizeInArchiveMB": 0,
    "MaximumRequestBodySizeMB": 0,
    "MaximumStorageMode": "Recycle",
    "RestApiWriteToFileSystemEnabled": True,
    "ServeFolders": {"/": "/"},
    "SslMinimumProtocolVersion": 1,
    "SyncStorageArea": False,
    "WebDavEnabled": True,
}
PROD = {"environment": "prod", "bind": "127.0.0.1", "images": {"source": "local"}}


def test_each_option_is_tried() -> None:
    assert WEAK.keys() == PROTECTIONS.keys()


@pytest.mark.parametrize("option", sorted(PROTECTIONS))
def test_prod_refuses_what_weakens_unless_it_is_named(option: str) -> None:
    block = {option: WEAK[option]}
    assert list(problems_of(stack(node("a", orthanc=block), **PROD))) == [f"nodes[0].orthanc.{option}"]
    assert problems_of(stack(node("a", orthanc=block, unsafe=[option]), **PROD)) == {}
    assert problems_of(stack(node("a", orthanc=block))) == {}, "dev is a laptop"


def test_what_is_named_has_to_weaken_something() -> None:
    assert list(problems_of(stack(node("a", unsafe=["WebDavEnabled"]), **PROD))) == ["nodes[0].unsafe[0]"]
    safe = node("a", unsafe=["WebDavEnabled"], orthanc={"WebDavEnabled": False})
    assert list(problems_of(stack(safe, **PROD))) == ["nodes[0].unsafe[0]"]
    assert "WebDavEnabled" in problems_of(stack(node("a", unsafe=["WebDavEnable"])))["nodes[0].unsafe[0]"]
    twice = node("a", unsafe=["WebDavEnabled", "WebDavEnabled"], orthanc={"WebDavEnabled": True})
    assert list(problems_of(stack(twice))) == ["nodes[0].unsafe"]


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_what_the_project_sets_itself_protects(environment: str) -> None:
    settings = settings_of(stack(node("a"), **{**PROD, "environment": environment}))
    options = options_of(settings.nodes[0], settings)
    assert [name for name, one in PROTECTIONS.items() if name in options and not one.holds(options[name])] == []
    said = {name for name in PROTECTIONS if name in options}
    assert said >= {"DicomCheckCalledAet", "ExecuteLuaEnabled", "RestApiWriteToFileSystemEnabled", "WebDavEnabled", "MaximumStorageMode"}
    assert environment == "dev" or said >= {"LimitFindInstances", "LimitFindResults"}
