"""Backup and restore of a stack with restic, and the check that index and files agree."""
