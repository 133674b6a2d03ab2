#!/bin/sh
# Becomes the command. PHP cannot listen on [::] where the kernel has no IPv6; then it listens on 0.0.0.0.
set -eu

if [ "${1:-}" = php ] && [ "${3:-}" = '[::]:8080' ] && [ ! -e /proc/net/if_inet6 ]; then
    flag=$2
    shift 3
    set -- php "$flag" 0.0.0.0:8080 "$@"
fi
exec "$@"
