"""A folder of the developers: linters, tests by size, reference pages. Nothing that a deployment needs."""
