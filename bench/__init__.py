"""Measurements side by side: this project against docker compose, an empty Pulumi program, and the settings of the stack it replaces."""
