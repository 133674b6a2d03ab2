"""From a stack file to settings: everything that is wrong with it at once, or a valid StackSettings.

Two ways lead here: ``pulumi.Config`` when Pulumi runs the program (load), and the YAML file for commands before Pulumi runs
(load_stack_file).
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from configs.names import own
from configs.problems import MOST_PROBLEMS, Problem, SettingsError, from_validation, nearest, report
from configs.rules import Parts, check
from configs.secrets import Certificate, check_secret, how_to_set, is_private_key, is_secret_key, is_setting, parties_of, secret_keys
from configs.settings import MAX_MODALITIES, MAX_NODES, LinkSettings, ModalitySettings, NodeSettings, StackSettings
from configs.stack_file import check_plain, read_config

Item = TypeVar("Item", bound=BaseModel)

#: Valid items with their indices, and the names of all items.
_Items = tuple[tuple[tuple[int, Item], ...], frozenset[str]]
_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Loaded:
    """What a stack file holds, less the values of its secrets."""

    settings: StackSettings
    parts: Parts  #: the same, with the place of each part in the file
    certificates: Mapping[str, Certificate] = field(default_factory=dict)  #: by the name of the party
    authority: str = ""  #: PEM: the certificate of the authority that made them; empty where the stack file holds none
    warnings: tuple[str, ...] = ()  #: certificates that end soon


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
    nodes, node_names = _valid_items(NodeSettings, "nodes", raw.get("nodes"), problems, MAX_NODES)
    modalities, modality_names = _valid_items(ModalitySettings, "modalities", raw.get("modalities"), problems, MAX_MODALITIES)
    lists = {"nodes": [node for _, node in nodes], "modalities": [modality for _, modality in modalities]}
    settings = _committing(_valid_rest({**raw, **lists}, problems))
    if raw.get("nodes") in (None, []):
        reason = "is missing or empty: a stack has at least one Orthanc node, with name, aet, httpPort and dicomPort."
        problems.append(Problem("nodes", reason))
    parts = Parts(nodes, modalities, node_names, modality_names, settings)
    problems += check(parts)
    return (None if problems else settings), parts, problems


def _committing(settings: StackSettings) -> StackSettings:
    """The settings with ``confirm: commitment`` for each link to a node that has ``auto``: every node of a stack has storage commitment."""
    known = {node.name for node in settings.nodes}

    def link_of(link: LinkSettings) -> LinkSettings:
        return link.model_copy(update={"confirm": "commitment"}) if link.confirm == "auto" and link.to in known else link

    nodes = tuple(node.model_copy(update={"forward_to": tuple(map(link_of, node.forward_to))}) for node in settings.nodes)
    return settings.model_copy(update={"nodes": nodes})


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
    problems += [_encrypted(key) for key, value in own(config).items() if is_setting(key) and _holds_encrypted(value)]
    if settings is None or problems:
        raise SettingsError(report(problems, name))
    return settings


def load(config: Mapping[str, str], secret: Iterable[str], stack: str, now: datetime) -> Loaded:
    """The settings of the stack that Pulumi runs, with its secrets and certificates checked.

    Args:
        config: the project's whole configuration as Pulumi hands it over: keys with the namespace, values as text or JSON.
        secret: the keys of it that are encrypted.
        stack: the stack's name.
        now: the time, with which the dates of certificates are compared.

    Raises:
        SettingsError: the stack file is refused; the text holds every problem.
    """
    encrypted = own(dict.fromkeys(secret, True))
    mine = own(config)
    # Also with a broken topology, the valid nodes tell which secrets are needed.
    settings, parts, problems = parse(said(mine))
    problems += [_encrypted(key) for key in sorted(encrypted) if is_setting(key)]
    needed = secret_keys(parts.settings)
    for key in needed:
        problem = check_secret(key, mine.get(key), encrypted=key in encrypted, strict=parts.settings.is_prod)
        problems += [problem] if problem else []
    for key in sorted(key for key in mine if is_secret_key(key) and key not in encrypted and key not in needed):
        if is_private_key(key):
            problems.append(Problem(key, f"is a private key, and stands in the stack file in clear: take another one. {how_to_set(key)}"))
        elif settings is not None:
            problems.append(Problem(key, f"is a secret in clear that this stack does not use.{nearest(key, needed)}"))
    loaded = Loaded(parts.settings, parts)
    if parties_of(parts.settings):
        from configs import certificates  # noqa: PLC0415 - for a stack with TLS only: its library takes a tenth of a second

        name = stack.rpartition("/")[2]
        if wrong := list(certificates.check_certificates(parts.settings, mine, name, now)):
            problems += wrong
        else:
            loaded = certificates.with_certificates(loaded, mine, name, now)
    if problems:
        raise SettingsError(report(problems, stack_file_name(stack)))
    return loaded


def said(config: Mapping[str, str]) -> dict[str, Any]:
    """The settings in a configuration as Pulumi hands it over, as a stack file has them: without secrets and certificates."""
    return {key: _plain(value) for key, value in config.items() if is_setting(key)}


def _encrypted(key: str) -> Problem:
    """A setting with ``secure:`` somewhere in it. Pulumi hands it over in clear, and settings are public: inputs, outputs, reports."""
    return Problem(key, "holds an encrypted value (secure:), and no setting is a secret: it would be shown in clear. Write it plainly.")


def _holds_encrypted(value: Any) -> bool:
    """Whether a value of a stack file has ``{secure: …}`` in it, which is Pulumi's form of an encrypted value."""
    if isinstance(value, Mapping):
        return (len(value) == 1 and isinstance(value.get("secure"), str)) or any(map(_holds_encrypted, value.values()))
    return isinstance(value, list) and any(map(_holds_encrypted, value))


def _plain(value: str) -> Any:
    """Pulumi hands over objects, lists, numbers and truth values as JSON, and text as it is."""
    try:
        decoded = json.loads(value)
    except (ValueError, RecursionError):  # RecursionError: a thousand brackets in each other are no setting either
        return value
    return decoded if isinstance(decoded, (dict, list, bool)) else value


def _valid_items(model: type[Item], key: str, raw: Any, problems: list[Problem], most: int) -> _Items[Item]:
    """The valid items of a list, each with its index, and the names of all: a link to an item with a mistake is not to an unknown one.

    What is wrong is added to the problems.
    """
    if not isinstance(raw, (list, tuple)):
        problems += [] if raw is None else [Problem(key, "is not a list; begin each item with a hyphen.")]
        return (), frozenset()
    if len(raw) > most:
        problems.append(Problem(key, f"has {len(raw)} items; a stack has at most {most}. Make several stacks."))
    valid = []
    for i, item in enumerate(raw[:most]):
        try:
            valid.append((i, model.model_validate(item)))
        except ValidationError as error:
            problems += from_validation(error, model, (key, i))
    named = (item.get("name") for item in raw if isinstance(item, Mapping))
    return tuple(valid), frozenset(name for name in named if isinstance(name, str))


def _valid_rest(raw: Mapping[str, Any], problems: list[Problem]) -> StackSettings:
    """The settings of a stack. What is invalid is added to the problems and left out, so that the other rules can still be checked."""
    try:
        return StackSettings.model_validate(raw)
    except ValidationError as error:
        problems += from_validation(error, StackSettings)
        wrong = {details["loc"][0] for details in error.errors(include_url=False) if details["loc"]}
        return StackSettings.model_validate({key: value for key, value in raw.items() if key not in wrong})
