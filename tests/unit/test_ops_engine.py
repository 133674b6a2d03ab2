"""Docker contexts, which Pulumi's provider does not know, become DOCKER_HOST."""

from __future__ import annotations

from typing import Any

import pytest

from ops.setup.engine import context_environment, context_name


@pytest.mark.parametrize(
    ("environ", "config", "name"),
    [
        ({}, {}, None),
        ({}, {"currentContext": "default"}, None),
        ({}, {"currentContext": "remote"}, "remote"),
        ({"DOCKER_CONTEXT": "other"}, {"currentContext": "remote"}, "other"),
        ({"DOCKER_CONTEXT": "default"}, {"currentContext": "remote"}, None),
        ({"DOCKER_CONTEXT": ""}, {"currentContext": "remote"}, "remote"),
        ({"DOCKER_HOST": "tcp://x:1", "DOCKER_CONTEXT": "other"}, {"currentContext": "remote"}, None),
        ({"DOCKER_HOST": ""}, {"currentContext": "remote"}, "remote"),
    ],
)
def test_which_context_is_in_use(environ: dict[str, str], config: dict[str, str], name: str | None) -> None:
    assert context_name(environ, config) == name


def _inspected(**changes: Any) -> dict[str, Any]:
    endpoint = {"Host": "ssh://user@host", "SkipTLSVerify": False}
    return {"Endpoints": {"docker": endpoint}, "TLSMaterial": {}, "Storage": {"TLSPath": "/tls"}, **changes}


def test_a_context_becomes_a_host() -> None:
    assert context_environment(_inspected()) == {"DOCKER_HOST": "ssh://user@host"}


def test_a_contexts_certificates_go_with_it() -> None:
    inspected = _inspected(TLSMaterial={"docker": ["ca.pem", "cert.pem", "key.pem"]})
    assert context_environment(inspected) == {
        "DOCKER_HOST": "ssh://user@host",
        "DOCKER_CERT_PATH": "/tls/docker",
        "DOCKER_TLS_VERIFY": "1",
    }


def test_a_context_that_skips_verification_still_does() -> None:
    endpoint = {"Host": "tcp://host:2376", "SkipTLSVerify": True}
    inspected = _inspected(Endpoints={"docker": endpoint}, TLSMaterial={"docker": ["ca.pem"]})
    assert "DOCKER_TLS_VERIFY" not in context_environment(inspected)
