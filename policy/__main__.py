"""The policy pack that `pulumi preview --policy-pack policy` runs: each rule of policy/rules.py is a policy of its name."""

import sys
from pathlib import Path

# The pack is started in its own folder; its modules, and the names that it shares with the program, are the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pulumi_policy import EnforcementLevel, PolicyPack

from policy import engine
from policy.rules import RULES

engine.listen()
PolicyPack("orthanc-stack", [engine.policy_of(rule) for rule in RULES], enforcement_level=EnforcementLevel.MANDATORY)
