#!/usr/bin/env bash
# Demands what the entry point of orthancteam/orthanc demands (docker/orthanc/docker-entrypoint.sh); README.md has the list.
set -o errexit

if [[ $# -ne 1 ]]; then
    echo "contract: one argument, the configuration, and not $#"
    exit 2
fi
if [[ ! -f /etc/hostid || $(< /etc/hostid) == not-generated ]]; then
    od -An -N4 -tx4 /dev/urandom | tr -d ' ' > /etc/hostid
fi
cd /startup
python3 configure.py
exec Orthanc "$1"
