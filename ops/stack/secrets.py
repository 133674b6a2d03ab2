"""Sets a stack's missing secrets to strong random values, and never changes one that is set."""

from __future__ import annotations

import secrets as randomness
import shutil
import string
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from configs.loader import load_stack_file
from configs.names import PROJECT
from configs.secrets import secret_keys
from configs.settings import StackSettings
from ops.setup.console import SetupError, say
from ops.setup.prepare import stack_config, stack_file
from ops.stack.stack import Stack, opened

_LENGTH: Final = 32
_ALPHABET: Final = string.ascii_letters + string.digits


def secrets(name: str) -> int:
    """Set the secrets of a stack that are missing; the exit status."""
    settings = load_stack_file(name)
    ensure_secrets(opened(name, engine=False), settings)
    return 0


def random_secret() -> str:
    """32 letters and digits (190 bits), which every image reads unchanged; beginning with a letter, so never a number."""
    first = randomness.choice(string.ascii_letters)
    return first + "".join(randomness.choice(_ALPHABET) for _ in range(_LENGTH - 1))


def missing_keys(needed: Iterable[str], config: Mapping[str, Any]) -> list[str]:
    """Those secrets that a stack file's config does not hold in any form."""
    return [key for key in needed if f"{PROJECT}:{key}" not in config]


def ensure_secrets(stack: Stack, settings: StackSettings) -> list[str]:
    """Set what is missing, and say what was set.

    Returns:
        the keys that were set.
    """
    needed = secret_keys(settings)
    missing = missing_keys(needed, stack_config(stack.name, stack.root))
    if missing:
        set_secrets(stack, {key: random_secret() for key in missing}, stack_file(stack.name, stack.root))
        say("Secrets", f"set to random values: {', '.join(missing)}")
    else:
        say("Secrets", f"all {len(needed)} set")
    return missing


def set_secrets(stack: Stack, values: Mapping[str, str], file: Path, plain: Mapping[str, str] | None = None) -> None:
    """Set secrets, all of them or none: on a copy of the stack file, which then takes its place.

    Values go through standard input. On a command line, as `pulumi config set-all` has them, every user of the machine
    could read them while it runs.

    Args:
        stack: the stack.
        values: the secrets by their keys.
        file: its stack file.
        plain: what to set with them, in clear.
    """
    draft = file.with_name(f".{file.stem}.draft.yaml")  # Pulumi goes by the suffix
    shutil.copy(file, draft)
    try:
        for key, value in values.items():
            stack.ask("config", "set", "--secret", f"{PROJECT}:{key}", "--config-file", str(draft), stdin=value)
        if plain:
            pairs = (f"--plaintext={PROJECT}:{key}={value}" for key, value in sorted(plain.items()))
            stack.ask("config", "set-all", *pairs, "--config-file", str(draft))
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


def require_secrets(stack: Stack, settings: StackSettings) -> None:
    """Refuse to go on where secrets are missing, for the commands that make none.

    Raises:
        SetupError: which, and what sets them.
    """
    if missing := missing_keys(secret_keys(settings), stack_config(stack.name, stack.root)):
        file = stack_file(stack.name, stack.root).name
        raise SetupError(f"{file} has no {', '.join(missing)}. `./orthanc-stack secrets {stack.name}` sets what is missing.")
