"""A whole stack from its settings: which arguments each component gets."""

from __future__ import annotations

from collections.abc import Mapping

import pulumi

from components.adminer import Adminer, AdminerArgs
from components.base import Limits
from components.forwarder import Forwarder, ForwarderArgs
from components.index_db import DatabaseOwner, OrthancIndexDb, OrthancIndexDbArgs
from components.network import StackNetwork, StackNetworkArgs
from components.orthanc_node import IndexDatabase, OrthancNode, OrthancNodeArgs, User
from components.stack_images import StackImages, StackImagesArgs
from components.tls import Identity, NodeTls, Trust
from configs import names, secrets
from configs.images import is_alpine
from configs.networks import networks_of
from configs.orthanc_options import options_of
from configs.program import Deployment
from configs.settings import IndexDbSettings, NodeSettings
from configs.tls import needs_certificate, private_key_key, trusted_by
from configs.wiring import DicomEndpoint, commits, peers_of

#: Docker's own weight is 1024. All nodes wait for the database, so it gets twice as much.
_DB_SHARES = 2048
_NODE_SHARES = 1024


def network_of(this: Deployment) -> StackNetwork:
    """The stack's private networks."""
    return StackNetwork("network", StackNetworkArgs(stack=this.ownership, networks=networks_of(this.settings)))


def images_of(this: Deployment) -> StackImages:
    """The images that the stack needs, and no others."""
    settings = this.settings
    needed = {"orthanc", *(["postgres"] if settings.index_nodes else []), *(["adminer"] if settings.adminer else [])}
    return StackImages("images", StackImagesArgs(choice=this.images, roles=tuple(sorted(needed))))


def index_db_of(this: Deployment, nodes: Mapping[str, OrthancNode], *, network: StackNetwork, images: StackImages) -> OrthancIndexDb | None:
    """The index database; None where every node keeps its index in SQLite."""
    settings = this.settings
    if not settings.index_nodes:
        return None
    args = OrthancIndexDbArgs(
        stack=this.ownership,
        image=images.id_of("postgres"),
        data=this.volume_of(names.DB_HOST),
        limits=_limits_of(settings.index_db, shares=_DB_SHARES),
        start_seconds=settings.index_db.start_timeout,
        networks=network.of(names.DB_HOST),
        admin_networks=network.of(names.DB_ROLES),
        major_version=settings.index_db.major_version,
        alpine=is_alpine(this.images.postgres),
        max_connections=settings.index_db.max_connections,
        password=this.secret(secrets.DB_PASSWORD),
        nodes={
            node.name: DatabaseOwner(password=this.secret(secrets.node_db_key(node.name)), data_id=nodes[node.name].data_id)
            for node in settings.index_nodes
        },
        tls=_identity_of(this, names.DB_HOST) if settings.db_tls else None,
        keep_data=this.keeps(names.DB_HOST),
        rename_removed=not this.keeps_data,
        again=this.roles_again,
    )
    return OrthancIndexDb(names.DB_HOST, args)


def endpoints_of(this: Deployment, *, network: StackNetwork) -> dict[str, DicomEndpoint[pulumi.Output[str]]]:
    """Where each node and each modality is reached, by name."""
    nodes = {node.name: network.endpoint(node) for node in this.settings.nodes}
    return nodes | {modality.name: network.outside(modality) for modality in this.settings.modalities}


def node_of(
    this: Deployment,
    node: NodeSettings,
    *,
    network: StackNetwork,
    images: StackImages,
    endpoints: Mapping[str, DicomEndpoint[pulumi.Output[str]]],
) -> OrthancNode:
    """One node, which is not started yet."""
    args = OrthancNodeArgs(
        stack=this.ownership,
        image=images.id_of("orthanc"),
        data=this.volume_of(node.name),
        limits=_limits_of(node, shares=_NODE_SHARES),
        start_seconds=node.start_timeout,
        networks=network.of(node.name),
        endpoint=endpoints[node.name],
        options=options_of(node, this.settings),
        peers=peers_of(node, this.settings, endpoints),
        users=_users_of(this, node),
        address=this.settings.bind_of(node),
        host=this.host_of(node),
        http_port=node.http_port,
        dicom_port=node.dicom_port,
        commits=commits(node, this.settings),
        deletes=node.delete_after is not None,
        unsafe=node.unsafe,
        tls=_tls_of(this, node),
        index=_database_of(this, node) if node.index == "postgresql" else None,
        keep_data=this.keeps(node.name),
    )
    return OrthancNode(node.name, args)


def start(this: Deployment, nodes: Mapping[str, OrthancNode], db: OrthancIndexDb | None) -> None:
    """Start the nodes.

    With its index in PostgreSQL a node is made after the database and stops before it, but refers to it by its alias: a new database
    container replaces no node.
    """
    on_db = {node.name for node in this.settings.index_nodes}
    for name, node in nodes.items():
        node.start(after=[db] if db and name in on_db else [])


def forwarders_of(
    this: Deployment, nodes: Mapping[str, OrthancNode], *, network: StackNetwork, images: StackImages
) -> dict[str, Forwarder]:
    """The forwarder of each node that forwards, by the node's name.

    Made after the node and its destinations, and stopped before them, without being replaced with them. Only then is a destination
    asked again for what it had refused, which a new revision of it stands for.
    """
    return {node.name: _forwarder_of(this, node, nodes, network=network, images=images) for node in this.settings.forwarding_nodes}


def adminer_of(this: Deployment, *, network: StackNetwork, images: StackImages) -> Adminer | None:
    """Adminer, where the stack file asks for it."""
    settings = this.settings
    if settings.adminer is None:
        return None
    args = AdminerArgs(
        stack=this.ownership,
        image=images.id_of("adminer"),
        networks=network.of(names.ADMINER),
        database_host=names.DB_HOST,
        address=settings.bind_of(settings.adminer),
        host=this.host_of(settings.adminer),
        port=settings.adminer.port,
    )
    return Adminer(names.ADMINER, args)


def _database_of(this: Deployment, node: NodeSettings) -> IndexDatabase:
    return IndexDatabase(
        host=names.DB_HOST,
        port=names.DB_PORT,
        database=names.database_of(node.name),
        password=this.secret(secrets.node_db_key(node.name)),
        trust=_trust_of(this, names.DB_HOST) if this.settings.db_tls else None,
    )


def _trust_of(this: Deployment, party: str) -> Trust:
    held = this.certificates[party]
    return Trust(held.trust, held.trust_fingerprint)


def _identity_of(this: Deployment, party: str) -> Identity:
    held = this.certificates[party]
    return Identity(
        certificate=held.chain,
        trust=_trust_of(this, party),
        expires=held.expires,
        fingerprint=held.fingerprint,
        key=this.secret(private_key_key(party)),
    )


def _tls_of(this: Deployment, node: NodeSettings) -> NodeTls | None:
    if not needs_certificate(node, this.settings):
        return None
    trusted = {peer: _trust_of(this, peer) for peer in trusted_by(node, this.settings)}
    return NodeTls(identity=_identity_of(this, node.name), serves=this.settings.tls_of(node), trusted=trusted)


def _limits_of(part: NodeSettings | IndexDbSettings, *, shares: int) -> Limits:
    return Limits(memory=part.memory, shares=shares, cpus=part.cpus)


def _users_of(this: Deployment, node: NodeSettings) -> dict[str, User]:
    """Who may log in at a node: its users, and its forwarder."""
    users = {user.name: User(user.role.value, this.secret(secrets.user_key(node.name, user.name))) for user in node.users}
    if node.forward_to:
        users[names.FORWARDER_USER] = User(names.FORWARDER_USER, this.secret(secrets.forwarder_key(node.name)))
    return users


def _forwarder_of(
    this: Deployment, node: NodeSettings, nodes: Mapping[str, OrthancNode], *, network: StackNetwork, images: StackImages
) -> Forwarder:
    destinations = {name: nodes[name] for name in node.targets if name in nodes}
    args = ForwarderArgs(
        stack=this.ownership,
        image=images.id_of("orthanc"),
        networks=network.of(names.forwarder_of(node.name)),
        node=node.name,
        links=node.forward_to,
        revisions={name: destination.revision for name, destination in destinations.items()},
        password=this.secret(secrets.forwarder_key(node.name)),
        trust=_trust_of(this, node.name) if this.settings.tls_of(node) else None,
        delete_after=node.delete_after,
        address=this.settings.bind_of(node),
        host=this.host_of(node),
        metrics_port=node.metrics_port,
        after=[nodes[node.name], *destinations.values()],
    )
    return Forwarder(names.forwarder_of(node.name), args)
