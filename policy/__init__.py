"""The policy pack: what must hold for any stack that uses these components. docs/policy.md lists the rules, rules.py has them."""
