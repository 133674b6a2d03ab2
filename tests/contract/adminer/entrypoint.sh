#!/bin/sh
# As TimWolla/docker-adminer's: what cannot be written is no error, and [::] is listened on whatever the kernel has.
set -e
touch .adminer-init || true
exec "$@"
