#!/usr/bin/env bash
# drift.sh STACK: looks for drift, and keeps the exit status beside the report, for drift-issue.sh. Fails where it could not be found out.
set -euo pipefail

status=0
./orthanc-stack drift "$1" || status=$?
mkdir -p artifacts/drift
echo "$status" >"artifacts/drift/$1.status"
# 3: something has drifted. The check itself went well.
[ "$status" = 3 ] || exit "$status"
