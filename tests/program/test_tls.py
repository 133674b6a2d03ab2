"""A stack with TLS under mocks: which files are made, who trusts whom, what a preview shows, and where no private key is."""

from __future__ import annotations

import json

import pytest

from tests.program.harness import SECRET, Run, raw_stack_file, run_program
from tests.unit.stacks import node, stack

SCANNER = {"name": "scanner", "aet": "SCANNER", "host": "10.0.0.7", "port": 104, "nodes": ["client"], "allow": ["store"], "tls": True}


@pytest.fixture(scope="module")
def prod() -> Run:
    return run_program(raw_stack_file("prod") | {"modalities": [SCANNER]}, "prod")


def certificates(pem: str) -> int:
    return pem.count("BEGIN CERTIFICATE")


def test_a_node_serves_by_tls_only(prod: Run) -> None:
    options = prod.configuration("server")
    for option in ("SslEnabled", "DicomTlsEnabled", "DicomTlsRemoteCertificateRequired"):
        assert options[option] is True
    assert options["DicomTlsMinimumProtocolVersion"] == options["SslMinimumProtocolVersion"] == 4
    assert prod.outputs["nodes"]["server"]["httpUrl"] == "https://127.0.0.1:8042"
    for option in ("SslCertificate", "DicomTlsCertificate", "DicomTlsPrivateKey", "DicomTlsTrustedCertificates"):
        assert options[option] in prod.files("server-container")
    assert prod.forwarder("client")["trust"] in prod.files("client-forwarder-container"), "the forwarder knows its node"


def test_the_key_is_in_a_file_for_root_alone_and_nowhere_in_the_open(prod: Run) -> None:
    identity = prod.files("server-container")["/run/secrets/tls.pem"]
    assert identity["permissions"] == "0400"
    assert "PRIVATE KEY" in identity["content"]
    assert certificates(identity["content"]) == 2
    assert prod.files("db-container")["/run/secrets/db-key.pem"]["permissions"] == "0400"
    for resource in prod.resources.values():
        in_the_open = {key: value for key, value in resource.inputs.items() if key not in resource.secret_inputs}
        assert "PRIVATE KEY" not in json.dumps(in_the_open), resource.name
    assert "PRIVATE KEY" not in json.dumps({k: v for k, v in prod.outputs.items() if k not in prod.secret_outputs})


def test_it_trusts_its_peers_issuers_and_not_the_authority(prod: Run) -> None:
    authority = prod.outputs["caCertificate"]
    trusted = {name: prod.files(f"{name}-container")["/etc/orthanc/tls-trusted.pem"]["content"] for name in ("server", "client")}
    assert {name: certificates(pem) for name, pem in trusted.items()} == {"server": 1, "client": 2}
    assert trusted["server"] == prod.outputs["nodes"]["client"]["tlsTrust"]
    assert prod.outputs["nodes"]["server"]["tlsTrust"] in trusted["client"]
    assert not any(authority in pem for pem in trusted.values())


def test_the_database_is_verified(prod: Run) -> None:
    secret = json.loads(prod.files("server-container")["/run/secrets/orthanc.json"]["content"])
    uri = secret["PostgreSQL"]["ConnectionUri"]
    assert uri.startswith("postgresql://orthanc_server:")
    assert uri.endswith("@db:5432/orthanc_server?sslmode=verify-full&sslrootcert=/etc/orthanc/tls-database.pem")
    assert SECRET in uri
    assert certificates(prod.files("server-container")["/etc/orthanc/tls-database.pem"]["content"]) == 1
    assert "ssl=on" in "".join(prod.one("db-container").inputs["command"])
    assert "hostssl all" in prod.files("db-container")["/etc/orthanc-stack/pg_hba.conf"]["content"]
    assert "PGSSLMODE=verify-full" in prod.one("db-roles").inputs["envs"]


def test_a_preview_shows_until_when_a_certificate_is_valid(prod: Run) -> None:
    for name in ("server", "db"):
        assert set(prod.one(name).inputs["certificate"]) == {"expires", "sha256"}
    assert sorted(prod.one("client").inputs["trusts"]) == ["db", "scanner", "server"]
    assert prod.one("client").inputs["trusts"]["db"] == prod.one("server").inputs["trusts"]["db"]
    assert list(prod.one("client-forwarder").inputs["trusts"]) == ["client"]


def test_a_node_without_tls_that_calls_one_shows_a_certificate() -> None:
    run = run_program(stack(node("archive", 0, tls=True), node("ct", 1, forwardTo=["archive"], index="sqlite")), "mixed")
    options = run.configuration("ct")
    assert (options["SslEnabled"], options["DicomTlsEnabled"]) == (False, False)
    assert options["DicomTlsCertificate"] in run.files("ct-container")
    assert options["DicomModalities"]["archive"]["UseDicomTls"]
    assert "UseDicomTls" not in run.configuration("archive")["DicomModalities"]["ct"]
    assert run.outputs["nodes"]["ct"]["httpUrl"].startswith("http:")
    assert run.forwarder("ct")["trust"] is None


def test_a_stack_without_tls_has_nothing_of_it() -> None:
    run = run_program(raw_stack_file("dev"), "dev")
    assert "caCertificate" not in run.outputs
    assert not any("tls" in file for name in ("server", "client") for file in run.files(f"{name}-container"))
    assert run.one("db-container").inputs.get("entrypoints") is None
