"""`make outputs`: what the stack promises its users, as JSON; secrets only when they are asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

MASK: Final = "[secret]"
#: Outputs that hold secrets, in whatever form they arrive.
_SECRET_OUTPUTS: Final = frozenset({"users"})


def outputs_json(outputs: Mapping[str, Any], *, show_secrets: bool) -> str:
    """Outputs as JSON with keys in a stable order.

    Pulumi has masked them already unless it was told not to. Masked again, one that the program forgot to mark stays hidden.
    """
    # Pulumi leaves out what is null.
    outputs = {"adminerUrl": None, "indexDb": None, **outputs}
    shown = dict(outputs) if show_secrets else {key: mask(value) if key in _SECRET_OUTPUTS else value for key, value in outputs.items()}
    return json.dumps(shown, indent=2, sort_keys=True, ensure_ascii=False)


def mask(value: Any) -> Any:
    """The same shape with every value in it hidden."""
    if isinstance(value, Mapping):
        return {key: mask(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [mask(inner) for inner in value]
    return value if value is None else MASK
