"""`check`: a stack file against every rule, without an engine, a state or a secret."""

import json

from configs.loader import load_stack_file
from configs.names import short_name
from configs.plan import plan_of
from configs.problems import SettingsError
from configs.secrets import secret_keys


def check(name: str, *, as_json: bool) -> int:
    """Print what a stack file describes, or everything that is wrong with it; 1 where it is refused."""
    try:
        settings = load_stack_file(name)
    except SettingsError as error:
        if not as_json:
            raise
        print(json.dumps({"stack": short_name(name), "accepted": False, "problems": str(error)}, indent=1))
        return 1
    if as_json:
        print(json.dumps({"stack": short_name(name), "accepted": True, "topology": plan_of(settings).topology}, indent=1))
        return 0
    nodes = ", ".join(node.name for node in settings.nodes)
    links = ", ".join(f"{node.name} -> {', '.join(sorted(node.targets))}" for node in settings.forwarding_nodes)
    print(f"  Pulumi.{short_name(name)}.yaml is accepted: {len(settings.nodes)} nodes ({nodes}); links: {links or 'none'}.")
    print(f"  It needs these secrets: {', '.join(secret_keys(settings))}.")
    return 0
