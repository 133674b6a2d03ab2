"""The stack's outputs. Other programs read them: once published, an output's name and shape stay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pulumi

from configs import names, secrets
from configs.program import Deployment
from configs.wiring import mermaid

if TYPE_CHECKING:
    from components import Adminer, Forwarder, OrthancNode


def of(this: Deployment, nodes: Mapping[str, OrthancNode], forwarders: Mapping[str, Forwarder], adminer: Adminer | None) -> dict[str, Any]:
    """The outputs by name.

    nodes: for each node its AE title, where its DICOM port and its web interface are reached from the host, the nodes and
        modalities that it forwards to, where its index is, its users' roles, with TLS what its certificate is known by, and, with a
        metricsPort, where its forwarder's metrics are.
    indexDb: where the database is reached on the stack's network (it is on no port of the host), and the first node's database, which
        Adminer's users want to see; ``databases`` has all of them, by node. null without one.
    adminerUrl: Adminer's address, or null.
    images: which images run (null for a part that the stack has not), and whether they come from a registry or were built here.
    caCertificate: the certificate of the stack's own authority, for browsers and devices; left out without one.
    topology: the stack as a Mermaid graph.
    users: secret; node -> user -> password.
    """
    settings, images = this.settings, this.images
    databases = {node.name: names.database_of(node.name) for node in settings.index_nodes}
    return {
        "nodes": {
            node.name: {
                "aet": node.aet,
                "dicomHost": nodes[node.name].dicom_host,
                "dicomPort": nodes[node.name].dicom_port,
                "forwardTo": sorted(node.targets),
                "httpUrl": nodes[node.name].http_url,
                "index": node.index,
                "indexDatabase": databases.get(node.name),
                "roles": {user.name: user.role.value for user in node.users},
                **({"tlsTrust": this.certificates[node.name].trust} if settings.tls_of(node) else {}),
                **_metrics_url(forwarders.get(node.name)),
            }
            for node in settings.nodes
        },
        "indexDb": {
            "host": names.DB_HOST,
            "port": names.DB_PORT,
            "database": databases[settings.index_nodes[0].name],
            "databases": databases,
        }
        if databases
        else None,
        "adminerUrl": adminer.url if adminer else None,
        "images": {
            "source": images.source,
            "orthanc": images.orthanc,
            "postgres": images.postgres if databases else None,
            "adminer": images.adminer if adminer else None,
        },
        **({"caCertificate": this.authority} if this.certificates and this.authority else {}),
        "topology": mermaid(settings),
        "users": pulumi.Output.secret(
            {node.name: {user.name: this.secret(secrets.user_key(node.name, user.name)) for user in node.users} for node in settings.nodes}
        ),
    }


def _metrics_url(forwarder: Forwarder | None) -> dict[str, pulumi.Output[str]]:
    return {"metricsUrl": forwarder.metrics_url} if forwarder and forwarder.metrics_url else {}
