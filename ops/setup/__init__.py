"""Finds or makes all that `pulumi up` needs, on a machine that may have none of it. Every step can be run again.

venv.py and what it imports run before there is a virtual environment: with the standard library alone.
"""
