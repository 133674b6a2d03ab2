"""What is refused where there is no docker command: nobody can see then what the engine holds, and whose it is."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from configs.names import DB_HOST
from configs.problems import Problem
from configs.settings import StackSettings

_HINT = "There is no docker command to look at the engine by. Install it (the client is enough), or leave this for a machine that has it."


def check_unseen(settings: StackSettings, volumes: Collection[str], outputs: Mapping[str, Any]) -> list[Problem]:
    """What would make a data volume, delete one, or read one that was made otherwise.

    Args:
        settings: the stack file.
        volumes: the data volumes that the stack's state holds, by their logical names (``server-data``).
        outputs: the outputs of the last deployment.
    """
    wanted = {f"{node.name}-data": f"nodes[{i}]" for i, node in enumerate(settings.nodes)}
    wanted |= {f"{DB_HOST}-data": "indexDb"} if settings.index_nodes else {}
    problems = [
        Problem(path, f"needs a data volume that this stack does not hold yet. {_HINT}")
        for name, path in wanted.items()
        if name not in volumes
    ]
    problems += [
        Problem("nodes", f"no longer has what the data volume of {name.removesuffix('-data')} is for, which would be deleted. {_HINT}")
        for name in sorted(set(volumes) - wanted.keys())
    ]
    was = {name: said["index"] for name, said in (outputs.get("nodes") or {}).items()}
    problems += [
        Problem(f"nodes[{i}].index", f"was {was[node.name]!r}, and that is what its volume fits. {_HINT}", node.index)
        for i, node in enumerate(settings.nodes)
        if was.get(node.name, node.index) != node.index
    ]
    return problems
