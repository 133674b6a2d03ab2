"""`make drift`: what somebody changed by hand of a stack that runs, told by node. It changes nothing itself.

Three things are asked, and each sees what the others do not: Pulumi's refresh, as a preview; the engine, for what the provider never reads
back (networks, environment, a container that took another's name); the files inside the containers, which are compared with the state.
"""
