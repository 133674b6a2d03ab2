"""What was changed by hand of a stack that runs, told by node. Nothing is changed here.

Pulumi's refresh, as a preview, tells what the provider reads back. The engine is asked for the rest: files inside the containers,
environment variables, networks, mounts, and what the stack did not make.
"""
