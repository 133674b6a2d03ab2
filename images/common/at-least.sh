#!/bin/sh
# Build stage only: end the build if a package is older than wanted. Usage: at-least.sh PACKAGE>=VERSION
set -eu

found=$(dpkg-query -W -f '${Version}' "${1%%>=*}")
case $1 in
    *'>='*) dpkg --compare-versions "$found" ge "${1#*>=}" || { echo "$1 is needed, the mirror has $found" >&2; exit 1; } ;;
esac
