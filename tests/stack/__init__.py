"""Whole stacks on real Docker, through Pulumi's Automation API."""
