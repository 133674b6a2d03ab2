"""Finds or makes all that `pulumi up` needs, on a machine that may have none of it.

Standard library only: this runs before there is a virtual environment. Every step can be run again and says in
one line what it found or made.
"""
