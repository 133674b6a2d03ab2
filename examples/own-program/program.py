"""A program of one's own: two trials, each with an archive, a database and networks of its own. A gateway forwards to the first.

pulumi stack init course
pulumi config set --secret password ...
pulumi up
"""

import sys
from pathlib import Path

import pulumi

# The components are imported from this repository: there is no package of them on an index.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import components as orthanc
from configs import names
from configs.orthanc import room_for_links
from configs.settings import LinkSettings
from images import local_image

config = pulumi.Config()
#: The gateway's links. Each end gets more jobs and threads for them.
LINKS = [LinkSettings(to="trial-a")]
PASSWORD = config.require_secret("password")
#: A registry's images, or those that `./orthanc-stack images STACK` builds from Debian's packages.
server_image = orthanc.image("orthanc", config.get("orthancImage") or local_image("orthanc")).image_id
postgres_image = orthanc.image("postgres", config.get("postgresImage") or local_image("postgres")).image_id


class Trial(pulumi.ComponentResource):
    """An archive with a database of its own."""

    def __init__(self, name: str, *, aet: str, network: pulumi.Output[str], peers: dict[str, orthanc.Peer], ports: list[int]) -> None:
        super().__init__("own-program:index:Trial", name)
        opts, kept = pulumi.ResourceOptions(parent=self), pulumi.ResourceOptions(parent=self, protect=config.get_bool("protect"))
        index = orthanc.private_network(f"{name}-index", internal=True, opts=opts).name
        data = orthanc.data_volume(f"{name}-data", data_format=names.postgresql_format(), opts=kept)
        owner = orthanc.DatabaseOwner(password=PASSWORD, data_id=orthanc.identifier_of(data))
        db = orthanc.OrthancIndexDb(
            f"{name}-db",
            orthanc.OrthancIndexDbArgs(image=postgres_image, network=index, password=PASSWORD, nodes={name: owner}, major_version=17),
            kept,
        )
        self.archive = orthanc.OrthancNode(
            name,
            orthanc.OrthancNodeArgs(
                aet=aet,
                image=server_image,
                network=network,
                users={"physicist": orthanc.User("admin", PASSWORD)},
                http_port=ports[0],
                dicom_port=ports[1],
                peers=peers,
                options=room_for_links([], LINKS if peers else []),
                index=db.index_of(name),
                data=data,
            ),
            opts,
        )
        self.register_outputs({})


#: The host's ports: of each node, for HTTP and for DICOM.
ports: list[int] = config.get_object("ports") or [*range(18100, 18106)]
# One network for each trial: the archives do not reach each other.
network_a, network_b = (orthanc.private_network(f"{name}-dicom").name for name in ("trial-a", "trial-b"))

# The gateway and the archive know each other by endpoints, whose hosts are outputs of the network that both are on.
gateway_at = orthanc.DicomEndpoint("GATEWAY", orthanc.reached_on(network_a, "gateway"))
sender = orthanc.Peer(gateway_at, frozenset({"AllowEcho", "AllowStore", "AllowNAction"}))
trial_a = Trial("trial-a", aet="TRIAL_A", network=network_a, peers={"gateway": sender}, ports=ports[:2])
trial_b = Trial("trial-b", aet="TRIAL_B", network=network_b, peers={}, ports=ports[2:4])

gateway = orthanc.OrthancNode(
    "gateway",
    orthanc.OrthancNodeArgs(
        aet=gateway_at.aet,
        image=server_image,
        network=network_a,
        users={"physicist": orthanc.User("admin", PASSWORD), "forwarder": orthanc.User("forwarder", PASSWORD)},
        http_port=ports[4],
        dicom_port=ports[5],
        options=room_for_links(LINKS, []),
        peers={"trial-a": orthanc.Peer(trial_a.archive.endpoint, frozenset({"AllowEcho", "AllowEventReport"}))},
    ),
)
orthanc.Forwarder(
    "gateway-forwarder",
    orthanc.ForwarderArgs(
        image=server_image,
        network=network_a,
        node=gateway,
        links=LINKS,
        destinations={"trial-a": trial_a.archive},
        password=PASSWORD,
    ),
)

pulumi.export("urls", {node.name: node.http_url for node in (trial_a.archive, trial_b.archive, gateway)})
pulumi.export("dicom", {node.name: node.dicom_port for node in (trial_a.archive, trial_b.archive, gateway)})
