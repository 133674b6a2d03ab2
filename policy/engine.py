"""Between Pulumi's engine and the rules.

The engine tells a pack the stack's configuration, and which values are secret. pulumi-policy 1.21 passes on neither: its ConfigureStack
keeps the tags alone, its deserialize_properties takes the marks of secrets off. serve() replaces both inside pulumi-policy; that is why
requirements.txt has its exact version. tests/stack/test_policy.py sees it work through the real command.
"""

from typing import Any

from pulumi_policy import deserialize, policy, proxy

from policy.resources import UNKNOWN, Resource, SecretText
from policy.rules import RULES, Rule


class Server(policy._PolicyAnalyzerServicer):
    """pulumi-policy's server, which also hears the stack's environment. It keeps no other configuration: secrets are in clear there."""

    environment: str | None = None

    def ConfigureStack(self, request: Any, context: Any) -> Any:  # noqa: N802
        Server.environment = dict(request.config).get(f"{request.project}:environment")
        return super().ConfigureStack(request, context)


def serve() -> None:
    """Answer the engine until it ends this process."""
    vars(policy).update(_PolicyAnalyzerServicer=Server, deserialize_properties=lambda properties, *_: properties)
    policy.PolicyPack("orthanc-stack", [policy_of(rule) for rule in RULES], enforcement_level=policy.EnforcementLevel.MANDATORY)


def policy_of(rule: Rule) -> policy.ResourceValidationPolicy:
    """A rule as Pulumi runs it. A stack is prod unless its configuration says `environment: dev`, as the program reads it."""

    def validate(args: policy.ResourceValidationArgs, report: policy.ReportViolation) -> None:
        # Out of pulumi-policy's own mappings and lists, which raise an error where a value is not known.
        inputs = marked(deserialize.serialize_properties(args.props))
        resource = Resource(type=args.resource_type, name=args.name, inputs=inputs, protected=bool(args.opts.protect))
        for message in rule.messages(resource, prod=Server.environment != "dev"):
            report(message, None)

    return policy.ResourceValidationPolicy(rule.name, rule.description, validate)


def marked(value: Any, *, secret: bool = False) -> Any:
    """A value as the engine sends it, with UNKNOWN for what is not known yet, and SecretText for the text in what is secret."""
    if isinstance(value, dict) and value.get(deserialize.SPECIAL_SIG_KEY) == deserialize.SPECIAL_SECRET_SIG:
        return marked(value.get("value"), secret=True)
    if isinstance(value, dict):
        return {key: marked(inner, secret=secret) for key, inner in value.items()}
    if isinstance(value, list):
        return [marked(inner, secret=secret) for inner in value]
    return UNKNOWN if proxy._is_unknown(value) else SecretText(value) if secret and isinstance(value, str) else value
