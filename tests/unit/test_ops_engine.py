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


@pytest.mark.parametrize(
    ("inspected", "more"),
    [
        pytest.param({}, {}, id="a host"),
        pytest.param(
            {"TLSMaterial": {"docker": ["ca.pem", "cert.pem", "key.pem"]}},
            {"DOCKER_CERT_PATH": "/tls/docker", "DOCKER_TLS_VERIFY": "1"},
            id="its certificates go with it",
        ),
        pytest.param(
            {"TLSMaterial": {"docker": ["ca.pem"]}, "Endpoints": {"docker": {"Host": "tcp://host:2376", "SkipTLSVerify": True}}},
            {"DOCKER_HOST": "tcp://host:2376", "DOCKER_CERT_PATH": "/tls/docker"},
            id="one that skips verification still does",
        ),
    ],
)
def test_a_context_becomes_a_host(inspected: dict[str, Any], more: dict[str, str]) -> None:
    context = {
        "Endpoints": {"docker": {"Host": "ssh://user@host", "SkipTLSVerify": False}},
        "TLSMaterial": {},
        "Storage": {"TLSPath": "/tls"},
    }
    assert context_environment({**context, **inspected}) == {"DOCKER_HOST": "ssh://user@host", **more}
