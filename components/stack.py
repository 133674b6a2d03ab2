"""A whole stack: the parts of its plan become components, and these become its outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi
import pulumi_docker as docker

from components.adminer import Adminer, AdminerArgs
from components.container import Limits, data_volume, identifier_of, image
from components.forwarder import Forwarder, ForwarderArgs
from components.index_db import DB_SHARES, DatabaseOwner, OrthancIndexDb, OrthancIndexDbArgs
from components.network import DicomEndpoint, private_network, reached_on
from components.orthanc_node import OrthancNode, OrthancNodeArgs, Peer, User
from components.ownership import owner_of
from components.preflight import Situation
from components.tls import NodeTls
from configs import names
from configs.loader import Loaded
from configs.plan import NodePlan, Plan
from configs.secrets import DB_PASSWORD, forwarder_key, private_key_key
from configs.settings import NodeSettings
from images import ImageChoice, is_alpine

#: The roles of images, as the output ``images`` lists them.
_ROLES = ("orthanc", "postgres", "adminer")


class StackImages(pulumi.ComponentResource):
    """The images that a stack runs."""

    ids: dict[str, pulumi.Output[str]]  #: The ID of each on the engine, by its role.

    def __init__(self, name: str, choice: ImageChoice, roles: tuple[str, ...]) -> None:
        super().__init__("orthanc-stack:index:StackImages", name, {"source": choice.source})
        opts = pulumi.ResourceOptions(parent=self)
        self.ids = {role: image(f"{name}-{role}", getattr(choice, role), opts).image_id for role in sorted(roles)}
        self.register_outputs({**self.ids})


class Stack:
    """The components of a stack, from its plan, its stack file's certificates, and what exists of it already."""

    nodes: dict[str, OrthancNode]  #: Its nodes, by name.
    forwarders: dict[str, Forwarder]  #: Its forwarders, by the node's name.
    adminer: Adminer | None  #: Adminer, where the stack file asks for it.

    def __init__(self, plan: Plan, loaded: Loaded, situation: Situation) -> None:
        self.plan, self._loaded, self._situation = plan, loaded, situation
        self._secret = pulumi.Config().require_secret
        self._owner = owner_of(situation.prefix, situation.held.owner, keep=situation.keeps_data)
        self._images = StackImages("images", situation.images, plan.images).ids
        self._networks = {
            name: private_network(name, stack=self._owner, internal=name == names.INDEX_NETWORK, way_out=name == names.DICOM_NETWORK).name
            for name in plan.networks
        }
        self._volumes = {
            name: self._volume(name, names.postgresql_format() if node.database else names.sqlite_format(), "OrthancNode")
            for name, node in plan.nodes.items()
        }
        self._db = self._index_db() if plan.databases else None
        dicom, settings = self._networks[names.DICOM_NETWORK], plan.settings
        endpoints = {node.name: DicomEndpoint(node.aet, reached_on(dicom, node.name)) for node in settings.nodes}
        endpoints |= {peer.name: DicomEndpoint(peer.aet, peer.host, peer.port) for peer in settings.modalities}
        self.nodes = {name: self._node(node, endpoints) for name, node in plan.nodes.items()}
        self.forwarders = {node.name: self._forwarder(node) for node in settings.forwarding_nodes}
        self.adminer = self._adminer()

    def _published(self, address: str) -> dict[str, Any]:
        """The arguments of a component whose ports are bound to an address of the host."""
        return {"address": address, "host": self._situation.host_of(address), "stack": self._owner}

    def _volume(self, part: str, data_format: str, once_in: str, spare: str = "") -> docker.Volume:
        """The data volume of a part, or the spare one with this logical name. Up to 2026-11 it was a child of the part's component: the
        alias finds it there.
        """
        parent = f"urn:pulumi:{pulumi.get_stack()}::{pulumi.get_project()}::orthanc-stack:index:{once_in}::{part}"
        keeps = self._situation.keeps(part) or self._situation.spare_volumes.get(spare) in self._situation.settings.adopt
        opts = pulumi.ResourceOptions(protect=keeps, aliases=[pulumi.Alias(parent=parent)])
        logical = spare or self._situation.logical_of(part)
        name = self._situation.spare_volumes.get(spare) or self._situation.volume_of(part)
        return data_volume(logical, data_format=data_format, stack=self._owner, name=name, opts=opts)

    def _index_db(self) -> OrthancIndexDb:
        plan, db, situation = self.plan, self.plan.settings.index_db, self._situation
        alpine, tls = is_alpine(situation.images.postgres), plan.settings.db_tls
        for spare in situation.spare_volumes:
            self._volume(names.DB_HOST, names.postgresql_format(), "OrthancIndexDb", spare)
        args = OrthancIndexDbArgs(
            image=self._images["postgres"],
            network=self._networks[names.INDEX_NETWORK],
            password=self._secret(DB_PASSWORD),
            nodes={
                name: DatabaseOwner(password=self._secret(plan.nodes[name].database_secret), data_id=identifier_of(self._volumes[name]))
                for name in plan.databases
            },
            major_version=db.major_version,
            alpine=alpine,
            data=self._volume(names.DB_HOST, names.postgresql_format(db.major_version, alpine=alpine), "OrthancIndexDb"),
            limits=Limits(memory=db.memory, cpus=db.cpus, shares=DB_SHARES),
            start_seconds=db.start_timeout,
            max_connections=db.max_connections,
            certificate=self._loaded.certificates[names.DB_HOST] if tls else None,
            key=self._secret(private_key_key(names.DB_HOST)) if tls else "",
            rename_removed=not situation.keeps_data,
            again=situation.engine.again,
            stack=self._owner,
        )
        return OrthancIndexDb(names.DB_HOST, args)

    def _node(self, node: NodePlan, endpoints: Mapping[str, DicomEndpoint]) -> OrthancNode:
        settings = node.settings
        args = OrthancNodeArgs(
            aet=settings.aet,
            image=self._images["orthanc"],
            network=self._networks[names.DICOM_NETWORK],
            users={name: User(user.role, self._secret(user.secret)) for name, user in node.users.items()},
            http_port=settings.http_port,
            dicom_port=settings.dicom_port,
            **self._published(node.address),
            peers={peer.name: Peer(endpoints[peer.name], peer.permissions, peer.tls) for peer in node.peers},
            options=node.options,
            deletes=settings.delete_after is not None,
            unsafe=settings.unsafe,
            tls=self._tls(node) if node.certificate else None,
            index=self._db.index_of(settings.name) if self._db and node.database else None,
            data=self._volumes[settings.name],
            # The volume's name stays when the stack is renamed.
            server_id=self._situation.volume_of(settings.name),
            limits=Limits(memory=settings.memory, cpus=settings.cpus),
            start_seconds=settings.start_timeout,
        )
        return OrthancNode(settings.name, args)

    def _tls(self, node: NodePlan) -> NodeTls:
        name, certificates = node.settings.name, self._loaded.certificates
        return NodeTls(
            certificate=certificates[name],
            key=self._secret(private_key_key(name)),
            serves=node.serves_tls,
            trusts={peer: certificates[peer] for peer in node.trusts},
        )

    def _forwarder(self, node: NodeSettings) -> Forwarder:
        args = ForwarderArgs(
            image=self._images["orthanc"],
            network=self._networks[names.DICOM_NETWORK],
            node=self.nodes[node.name],
            links=node.forward_to,
            destinations={name: self.nodes[name] for name in node.targets if name in self.nodes},
            password=self._secret(forwarder_key(node.name)),
            delete_after=node.delete_after,
            metrics_port=node.metrics_port,
            **self._published(self.plan.nodes[node.name].address),
        )
        return Forwarder(names.forwarder_of(node.name), args)

    def _adminer(self) -> Adminer | None:
        settings = self.plan.settings
        if settings.adminer is None:
            return None
        args = AdminerArgs(
            image=self._images["adminer"],
            networks=[self._networks[names.INDEX_NETWORK], self._networks[names.ADMIN_NETWORK]],
            database_host=names.DB_HOST,
            port=settings.adminer.port,
            **self._published(settings.bind_of(settings.adminer)),
        )
        return Adminer(names.ADMINER, args)

    def outputs(self) -> dict[str, Any]:
        """The stack's outputs by name. Other programs read them: once published, an output's name and shape stay.

        nodes: for each node its AE title, where its DICOM port and its web interface are reached from the host, the nodes and
            modalities that it forwards to, where its index is, its users' roles; with TLS the certificate that others trust; with a
            metricsPort where its forwarder's metrics are.
        indexDb: where the database is reached on the stack's network (it is on no port of the host), and the first node's database, for
            Adminer's users; ``databases`` has all of them, by node. null without an index database.
        adminerUrl: Adminer's address, or null.
        images: which images run (null for a part that the stack has not), and whether they come from a registry or were built here.
        caCertificate: the certificate of the stack's own authority, for browsers and devices; left out without one.
        settings: what the stack file said, with the defaults of what it left out, under the stack file's own names; no secret is in it.
            A preview compares the next stack file with it.
        topology: the stack as a Mermaid graph.
        users: secret; node -> user -> password.
        """
        plan, images, authority = self.plan, self._situation.images, self._loaded.authority
        databases = dict(plan.databases)
        db = {"host": names.DB_HOST, "port": names.DB_PORT, "database": next(iter(databases.values()), None), "databases": databases}
        passwords = {
            name: {user.name: self._secret(node.users[user.name].secret) for user in node.settings.users}
            for name, node in plan.nodes.items()
        }
        return {
            "nodes": {name: self._outputs_of(node) for name, node in plan.nodes.items()},
            "indexDb": db if databases else None,
            "adminerUrl": self.adminer.url if self.adminer else None,
            "images": {"source": images.source} | {role: getattr(images, role) if role in plan.images else None for role in _ROLES},
            **({"caCertificate": authority} if self._loaded.certificates and authority else {}),
            "settings": plan.settings.model_dump(mode="json", by_alias=True),
            "topology": plan.topology,
            "users": pulumi.Output.secret(passwords),
        }

    def _outputs_of(self, node: NodePlan) -> dict[str, Any]:
        settings = node.settings
        made, forwarder = self.nodes[settings.name], self.forwarders.get(settings.name)
        return {
            "aet": settings.aet,
            "dicomHost": made.dicom_host,
            "dicomPort": made.dicom_port,
            "forwardTo": sorted(settings.targets),
            "httpUrl": made.http_url,
            "index": settings.index,
            "indexDatabase": node.database or None,
            "roles": {user.name: user.role.value for user in settings.users},
            **({"tlsTrust": made.tls_certificate.trust} if made.tls_certificate else {}),
            **({"metricsUrl": forwarder.metrics_url} if forwarder and forwarder.metrics_url else {}),
        }
