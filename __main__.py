"""The program that `pulumi up` runs: settings -> components -> outputs."""

import pulumi

from components import stack
from configs import outputs, program

this = program.begin()

network = stack.network_of(this)
images = stack.images_of(this)
endpoints = stack.endpoints_of(this, network=network)
nodes = {node.name: stack.node_of(this, node, network=network, images=images, endpoints=endpoints) for node in this.settings.nodes}
db = stack.index_db_of(this, nodes, network=network, images=images)
stack.start(this, nodes, db)
forwarders = stack.forwarders_of(this, nodes, network=network, images=images)
adminer = stack.adminer_of(this, network=network, images=images)

for name, value in outputs.of(this, nodes, forwarders, adminer).items():
    pulumi.export(name, value)
