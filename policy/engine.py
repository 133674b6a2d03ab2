"""Between Pulumi's engine and the rules: what is asked about a resource, what is known of its stack.

The engine tells a pack the stack's configuration, and which values are secret. pulumi-policy 1.21 passes on neither: its ConfigureStack
keeps the tags alone, its deserialize_properties takes the marks off. listen() puts both back, by two names inside pulumi-policy; that is
why requirements.txt has its exact version. tests/stack/test_policy.py sees both work through the real command.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pulumi_policy import ReportViolation, ResourceValidationArgs, ResourceValidationPolicy, deserialize, policy
from pulumi_policy.proxy import UnknownValueError

from policy.resources import UNKNOWN, Resource, SecretText
from policy.rules import Rule

_deserialize_without_marks = deserialize.deserialize_properties


class _Stack:
    """What is kept of what the engine says of the stack: not its configuration, which has the secrets in clear."""

    environment: str | None = None


def is_prod() -> bool:
    """Whether production's rules hold: always, unless the stack's configuration says `environment: dev`, as the program reads it."""
    return _Stack.environment != "dev"


class _Listening(policy._PolicyAnalyzerServicer):
    """pulumi-policy's server, which also hears what the stack is."""

    def ConfigureStack(self, request: Any, context: Any) -> Any:  # noqa: N802
        _Stack.environment = dict(request.config).get(f"{request.project}:environment")
        return super().ConfigureStack(request, context)


def listen() -> None:
    """Hear the stack's configuration and the marks of secrets; before the pack is made."""
    vars(policy).update(_PolicyAnalyzerServicer=_Listening, deserialize_properties=_deserialize_properties)


def policy_of(rule: Rule) -> ResourceValidationPolicy:
    """A rule as Pulumi runs it."""

    def validate(args: ResourceValidationArgs, report: ReportViolation) -> None:
        if args.resource_type in rule.types and (is_prod() or not rule.prod_only):
            for message in rule.validate(resource_of(args)):
                report(message, None)

    return ResourceValidationPolicy(rule.name, rule.description, validate)


def resource_of(args: ResourceValidationArgs) -> Resource:
    """What the engine asks about."""
    return Resource(type=args.resource_type, name=args.name, inputs=_plain(args.props), protected=bool(args.opts.protect))


def _plain(value: Any) -> Any:
    """Plain mappings and lists instead of pulumi-policy's, which raise an error where a value is not known."""
    if isinstance(value, Mapping):
        return {key: _known(value, key) for key in value}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_known(value, index) for index in range(len(value))]
    return value


def _known(holder: Any, key: Any) -> Any:
    try:
        return _plain(holder[key])
    except UnknownValueError:
        return UNKNOWN


def _deserialize_properties(properties: dict[str, Any], proxy_secrets: bool = False) -> dict[str, Any]:
    """pulumi-policy's, with secret text marked as such."""
    wanted = properties if proxy_secrets else marked(properties)
    result: dict[str, Any] = _deserialize_without_marks(wanted, proxy_secrets)
    return result


def marked(value: Any, *, secret: bool = False) -> Any:
    """Values as the engine sends them, with SecretText for the text in what it says is secret."""
    if isinstance(value, dict):
        if value.get(deserialize.SPECIAL_SIG_KEY) == deserialize.SPECIAL_SECRET_SIG:
            return marked(value.get("value"), secret=True)
        return {key: marked(inner, secret=secret) for key, inner in value.items()}
    if isinstance(value, list):
        return [marked(inner, secret=secret) for inner in value]
    return SecretText(value) if secret and isinstance(value, str) else value
