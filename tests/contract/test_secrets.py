"""No password shows. In the environment of PostgreSQL's server it does, as README.md says, to who can read its file as well."""

from tests.stack.test_secrets import test_not_in_a_containers_log, test_not_in_docker_inspect, test_not_on_a_command_line
