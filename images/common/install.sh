#!/bin/sh
# Build stage only: install Debian packages without their documentation.
# Usage: install.sh PACKAGE[>=VERSION]...   the oldest version that will do: what a mirror has moves
set -eu
export DEBIAN_FRONTEND=noninteractive

# Licences stay; everything else that only a person at a terminal reads goes.
cat > /etc/dpkg/dpkg.cfg.d/orthanc-stack <<'END'
path-exclude=/usr/share/doc/*
path-include=/usr/share/doc/*/copyright
path-exclude=/usr/share/man/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/locale/*
path-include=/usr/share/locale/locale.alias
END

apt-get update
apt-get upgrade -y
# shellcheck disable=SC2046 # one word a package
apt-get install -y --no-install-recommends $(printf '%s\n' "$@" | sed 's/>=.*//')
for wanted in "$@"; do
    sh "${0%/*}/at-least.sh" "$wanted"
done
