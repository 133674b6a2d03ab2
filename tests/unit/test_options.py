"""Orthanc's options by its own ranges and words, and addresses that can be reached. No Pulumi; tests/stack/test_options.py asks Orthanc."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from configs.engine import engine_url, host_in, is_local, reached_at
from tests.unit.stacks import node, problems_of, stack

BLOCK = "nodes[0].orthanc"


@pytest.mark.parametrize(
    ("option", "wrong", "right"),
    [
        ("MaximumPduLength", (262144, 4095, "16384", True), (4096, 131072)),
        ("DicomThreadsCount", (0, 1001), (1,)),
        ("DefaultEncoding", ("UTF-8", ""), ("Utf8", "utf8", "Latin1")),
        ("StorageAccessOnFind", ("always",), ("Always",)),
        ("OverwriteInstances", ("never", 1), (True, "Never")),
        ("IngestTranscoding", ("1.2.840.10008.1.2.4.71", "JPEG"), ("1.2.840.10008.1.2.4.70",)),
    ],
)
def test_an_option_is_held_to_its_range_and_words(option: str, wrong: tuple[Any, ...], right: tuple[Any, ...]) -> None:
    for value in wrong:
        assert list(problems_of(stack(node("a", orthanc={option: value})))) == [f"{BLOCK}.{option}"]
    for value in right:
        assert problems_of(stack(node("a", orthanc={option: value}))) == {}


@pytest.mark.parametrize(
    ("block", "path"),
    [
        ({"PostgreSQL": {"TransactionMode": "serializable"}}, "PostgreSQL.TransactionMode"),
        ({"PostgreSQL": {"IndexConnectionCount": 5}}, "PostgreSQL.IndexConnectionCount"),
        ({"PostgreSQL": {"IndexConnectionsCount": 0}}, "PostgreSQL.IndexConnectionsCount"),
        ({"Warnings": {"W001": False}}, "Warnings.W001"),
        ({"UserMetadata": {"mine": 1023}}, "UserMetadata.mine"),
        ({"UserMetadata": [1024]}, "UserMetadata"),
        ({"AcceptedSopClasses": ["1.2.3", 4]}, "AcceptedSopClasses[1]"),
        ({"SslCiphersAccepted": [""]}, "SslCiphersAccepted[0]"),
        ({"OverwriteInstances": "IfChanged", "StoreMD5ForAttachments": False}, "OverwriteInstances"),
        ({"PatientLevelEnabled": False, "MaximumStorageSize": 1}, "MaximumStorageSize"),
    ],
)
def test_what_orthanc_checks_deeper(block: dict[str, Any], path: str) -> None:
    assert list(problems_of(stack(node("a", orthanc=block)))) == [f"{BLOCK}.{path}"]


def test_dicoms_own_tls_profile_takes_no_ciphers() -> None:
    block = {"DicomTlsMinimumProtocolVersion": 0}
    assert list(problems_of(stack(node("a", tls=True, orthanc=block)))) == [f"{BLOCK}.DicomTlsMinimumProtocolVersion"]
    assert problems_of(stack(node("a", tls=True, orthanc={**block, "DicomTlsCiphersAccepted": []}))) == {}
    assert problems_of(stack(node("a", orthanc=block))) == {}


ITSELF = ["localhost", "LOCALHOST", "a.localhost", "ip6-loopback", "127.0.0.1", "127.1.2.3", "0.0.0.0", "::", "::1", "::ffff:127.0.0.1"]
ITSELF += ["0x7f000001", "127.0.0.0x1"]
NOBODY = ["224.0.0.1", "255.255.255.255", "0.1.2.3", "240.0.0.1", "ff02::1", "fe80::1", "::ffff:224.0.0.1"]
SOMEBODY = [
    "host.docker.internal",
    "10.0.0.7",
    "169.254.1.2",
    "fd00::7",
    "::ffff:10.0.0.7",
    "64:ff9b::a00:7",
    "localhost-2",
    "ct.hospital.org",
]


def with_host(host: str) -> dict[str, str]:
    device = {"name": "ct", "aet": "CT", "host": host, "port": 104, "nodes": ["a"]}
    return problems_of(stack(node("a", forwardTo=["b"]), node("b", 1), modalities=[device]))


@pytest.mark.parametrize("host", [*ITSELF, *NOBODY, "a", "B", "db", "adminer", "a-forwarder", "localhost."])
def test_a_device_that_no_node_could_reach(host: str) -> None:
    problems = with_host(host)
    assert list(problems) == ["modalities[0].host"]
    assert ("host.docker.internal" in problems["modalities[0].host"]) is (host in ITSELF)


@pytest.mark.parametrize("host", SOMEBODY)
def test_a_device_that_a_node_can_reach(host: str) -> None:
    assert with_host(host) == {}


@pytest.mark.parametrize("section", ["OrthancPeers", "DicomWeb.Servers"])
@pytest.mark.parametrize(
    ("peer", "right"),
    [
        (["http://peer:8042/"], True),
        (["https://peer/", "user", "password"], True),
        ({"Url": "http://[fd00::7]:8042"}, True),
        (["http://localhost:8042/"], False),
        ({"URL": "https://user@[::1]:8042"}, False),
        (["http://peer/", "user"], False),
        (["ftp://peer/"], False),
        ({}, False),
        ("http://peer/", False),
    ],
)
def test_other_servers(section: str, peer: Any, right: bool) -> None:
    outer, _, inner = section.partition(".")
    block = {outer: {inner: {"p": peer}} if inner else {"p": peer}}
    assert list(problems_of(stack(node("a", orthanc=block)))) == ([] if right else [f"{BLOCK}.{section}.p"])


@pytest.mark.parametrize(
    ("address", "here", "elsewhere"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("10.0.0.7", "10.0.0.7", "10.0.0.7"),
        ("0.0.0.0", "127.0.0.1", "docker7"),
        ("::", "::1", "docker7"),
        ("fd00::7", "fd00::7", "fd00::7"),
    ],
)
def test_where_a_port_is_reached(address: str, here: str, elsewhere: str) -> None:
    assert (reached_at(address, ""), reached_at(address, "docker7")) == (here, elsewhere)


@pytest.mark.parametrize(
    ("url", "host", "local"),
    [
        ("unix:///var/run/docker.sock", "", True),
        ("npipe:////./pipe/docker_engine", "", True),
        ("ssh://root@docker7", "docker7", False),
        ("ssh://root@docker7:2222/run/docker.sock", "docker7", False),
        ("tcp://10.0.0.7:2376", "10.0.0.7", False),
        ("tcp://[fd00::7]:2376", "fd00::7", False),
        ("tcp://127.0.0.1:2375", "", False),
        ("tcp://localhost:2375", "", False),
        ("tcp://[broken", "", False),
        ("", "", False),
    ],
)
def test_the_host_of_an_engine(url: str, host: str, local: bool) -> None:
    assert (host_in(url), is_local(url)) == (host, local)


def test_which_engine_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\n[ "$1 $2" = "context inspect" ] && echo "ssh://of-${3#--format}"\n')
    docker.chmod(0o755)
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.delenv("DOCKER_CONTEXT", raising=False)
    assert engine_url([str(docker)]) == "unix://"
    assert engine_url([str(docker), "--host", "tcp://x:1"]) == "tcp://x:1"
    assert engine_url([str(docker), "--context", "x"]) == "ssh://of-x"
    assert engine_url(["/no/docker", "--context", "x"]) == ""
    monkeypatch.setenv("DOCKER_CONTEXT", "y")
    assert engine_url([str(docker)]) == "ssh://of-"
    monkeypatch.setenv("DOCKER_HOST", "ssh://z")
    assert engine_url([str(docker)]) == "ssh://z"
    assert engine_url([str(docker), "--context", "x"]) == "ssh://of-x"
