#!/bin/sh
# Makes one configuration of the mounted ones, then becomes Orthanc (process 1, so that SIGTERM reaches it).
set -eu

if [ $# -ne 1 ]; then
    echo "orthanc: expected exactly one argument, the path of the configuration, got $#" >&2
    exit 2
fi

# DCMTK asks for a host id to make DICOM identifiers. Without this file glibc derives one from the host's address,
# through DNS, and each identifier may wait 40 s for a name server that does not answer.
# gethostid(3): the file holds the 32-bit number itself.
if [ -n "${FORCE_HOST_ID:-}" ]; then
    echo "$FORCE_HOST_ID" > /etc/hostid
elif [ "${GENERATE_HOST_ID_IF_MISSING:-true}" = true ]; then
    if [ ! -e /etc/hostid ] || grep -qx not-generated /etc/hostid; then
        head -c 4 /dev/urandom > /etc/hostid
    fi
fi

/usr/bin/python3 -ISE /startup/generate_configuration.py
/usr/bin/python3 -ISE /startup/index_statistics.py "$1"

verbosity=
[ "${VERBOSE_ENABLED:-}" != true ] || verbosity=--verbose
[ "${TRACE_ENABLED:-}" != true ] || verbosity=--trace
jobs=
[ "${NO_JOBS:-}" != true ] || jobs=--no-jobs

exec Orthanc ${verbosity:+"$verbosity"} ${jobs:+"$jobs"} "$1"
