"""From a stack file to settings: everything that is wrong with it at once, or a valid StackSettings.

Two ways lead here: ``pulumi.Config`` when Pulumi runs the program (load), and the YAML file itself for what has to know
before Pulumi runs (load_stack_file).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from configs.names import PROJECT, own
from configs.problems import MOST_PROBLEMS, NO_VALUE, Problem, SettingsError, from_validation, nearest, report
from configs.rules import Parts, check
from configs.secrets import Certificate, check_secret, how_to_set, is_private_key, is_secret_key, is_setting, parties_of, secret_keys
from configs.settings import MAX_MODALITIES, MAX_NODES, ModalitySettings, NodeSettings, StackSettings
from configs.stack_file import check_plain, read_config

Item = TypeVar("Item", bound=BaseModel)

_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Loaded:
    """What a stack file holds, less the values of its secrets.

    Attributes:
        settings: its settings.
        parts: the same with each part's place in the file.
        certificates: the certificates of those that speak TLS, by name.
        authority: the certificate of the authority that made them; empty where the stack file holds none.
        warnings: certificates that end soon.
    """

    settings: StackSettings
    parts: Parts
    certificates: Mapping[str, Certificate] = field(default_factory=dict)
    authority: str = ""
    warnings: tuple[str, ...] = ()


def stack_file_name(stack: str) -> str:
    """The stack file of a stack, as Pulumi names it; of "organization/project/dev" only the last part counts."""
    return f"Pulumi.{stack.rpartition('/')[2]}.yaml"


def parse(raw: Mapping[str, Any]) -> tuple[StackSettings | None, Parts, list[Problem]]:
    """Settings from what a stack file says, less the secrets.

    Returns:
        The settings, or None where there are problems; the parts that are valid in themselves; the problems.
    """
    problems = list(islice(check_plain(raw), MOST_PROBLEMS + 1))
    if problems:  # the other rules are written for plain values
        return None, Parts((), (), frozenset(), frozenset(), StackSettings(nodes=())), problems
    nodes = _valid_items(NodeSettings, "nodes", raw.get("nodes"), problems, MAX_NODES)
    modalities = _valid_items(ModalitySettings, "modalities", raw.get("modalities"), problems, MAX_MODALITIES)
    rest = {key: value for key, value in raw.items() if key not in ("nodes", "modalities")}
    lists = {"nodes": [node for _, node in nodes], "modalities": [modality for _, modality in modalities]}
    settings = _valid_rest(rest, lists, problems)
    if raw.get("nodes") in (None, []):
        problems.append(
            Problem("nodes", "is missing or empty: a stack has at least one Orthanc node, with name, aet, httpPort and dicomPort.")
        )
    parts = Parts(
        nodes=tuple(nodes),
        modalities=tuple(modalities),
        node_names=frozenset(_names(raw.get("nodes"))),
        modality_names=frozenset(_names(raw.get("modalities"))),
        settings=settings,
    )
    problems += check(parts)
    return (None if problems else settings), parts, problems


def load_stack_file(stack: str, folder: Path = _ROOT) -> StackSettings:
    """The settings in Pulumi.<stack>.yaml, read without Pulumi and without its secrets.

    Raises:
        SettingsError: the file is missing or refused.
    """
    name = stack_file_name(stack)
    try:
        config = read_config(folder / name)
    except FileNotFoundError:
        known = sorted(path.name for path in folder.glob("Pulumi.*.yaml"))
        raise SettingsError(f"There is no {name}: write one (README, a topology of one's own). There are: {', '.join(known)}.") from None
    settings, _, problems = parse({key: value for key, value in own(config).items() if is_setting(key)})
    foreign = [key for key in config if not isinstance(key, str)]
    problems += [Problem("config", "has a key that is not text; each begins with 'orthanc-stack:'.", key) for key in foreign]
    if settings is None or problems:
        raise SettingsError(report(problems, name))
    return settings


def load(config: Mapping[str, str], secret: Iterable[str], stack: str, now: datetime | None = None) -> Loaded:
    """The settings of the stack that Pulumi runs, with its secrets and certificates checked.

    Args:
        config: the project's whole configuration as Pulumi hands it over: keys with the namespace, values as text or JSON.
        secret: the keys of it that are encrypted.
        stack: the stack's name.
        now: the time that certificates are compared with; None for the machine's.

    Raises:
        SettingsError: the stack file is refused; the text holds every problem.
    """
    encrypted = set(secret)
    mine = own(config)
    settings, parts, problems = parse(said(mine))
    # With a broken topology the secrets that it needs are still known as far as its nodes are.
    known = parts.settings
    needed = secret_keys(known)
    for key in needed:
        problem = check_secret(key, mine.get(key), encrypted=f"{PROJECT}:{key}" in encrypted, strict=known.is_prod)
        problems += [problem] if problem else []
    for key in sorted(mine):
        if not is_secret_key(key) or f"{PROJECT}:{key}" in encrypted or key in needed:
            continue
        if is_private_key(key):
            problems.append(Problem(key, f"is a private key, and stands in the stack file in clear: take another one. {how_to_set(key)}"))
        elif settings is not None:
            problems.append(Problem(key, f"is a secret in clear that this stack does not use.{nearest(key, needed)}"))
    loaded = Loaded(known, parts)
    if parties_of(known):
        from configs import certificates  # noqa: PLC0415 - for a stack with TLS only: its library takes a tenth of a second

        now, name = now or datetime.now(UTC), stack.rpartition("/")[2]
        if not (wrong := list(certificates.check_certificates(known, mine, name, now))):
            loaded = certificates.with_certificates(loaded, mine, name, now)
        problems += wrong
    if settings is None or problems:
        raise SettingsError(report(problems, stack_file_name(stack)))
    return loaded


def said(config: Mapping[str, str]) -> dict[str, Any]:
    """The settings in a configuration as Pulumi hands it over, as a stack file says them: less secrets and certificates."""
    return {key: _plain(value) for key, value in config.items() if is_setting(key)}


def _plain(value: str) -> Any:
    """Pulumi hands over objects, lists, numbers and truth values as JSON, and text as it is."""
    try:
        decoded = json.loads(value)
    except (ValueError, RecursionError):  # RecursionError: brackets in brackets, a thousand deep, are no setting either
        return value
    return decoded if isinstance(decoded, (dict, list, bool)) else value


def _valid_items(model: type[Item], key: str, raw: Any, problems: list[Problem], most: int) -> list[tuple[int, Item]]:
    """The valid items of a list, each with its index; what is wrong with the others goes to the problems."""
    if raw is None:
        return []
    if not isinstance(raw, (list, tuple)):
        problems.append(Problem(key, "is not a list; begin each item with a hyphen."))
        return []
    if len(raw) > most:
        problems.append(Problem(key, f"has {len(raw)} items; a stack has at most {most}. Make several stacks."))
    valid = []
    for i, item in enumerate(raw[:most]):
        try:
            valid.append((i, model.model_validate(item)))
        except ValidationError as error:
            problems += from_validation(error, model, (key, i))
    return valid


def _valid_rest(rest: Mapping[str, Any], lists: Mapping[str, Any], problems: list[Problem]) -> StackSettings:
    """Everything but the lists. What is invalid is reported and left out, so that the other rules can still be checked."""
    try:
        return StackSettings.model_validate({**rest, **lists})
    except ValidationError as error:
        problems += from_validation(error, StackSettings)
        wrong = {str(details["loc"][0]) for details in error.errors(include_url=False) if details["loc"]}
        return StackSettings.model_validate({**{key: value for key, value in rest.items() if key not in wrong}, **lists})


def _names(raw_items: Any) -> Iterable[str]:
    """The names of all nodes or modalities, valid or not, so that a link to one with another mistake is not called unknown."""
    for item in raw_items if isinstance(raw_items, (list, tuple)) else ():
        name = item.get("name", NO_VALUE) if isinstance(item, Mapping) else NO_VALUE
        if isinstance(name, str):
            yield name
