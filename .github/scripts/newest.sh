#!/usr/bin/env bash
# newest.sh: refuses a commit that is no longer the newest of its branch: an approval may come days later, a run may be started again.
# Needs GH_TOKEN, which may read the repository.
set -euo pipefail

here=$(git rev-parse HEAD)
newest=$(gh api "repos/$GITHUB_REPOSITORY/git/ref/heads/$GITHUB_REF_NAME" --jq .object.sha)
if [ "$newest" != "$here" ]; then
  echo "::error::$GITHUB_REF_NAME is at $newest, and this is $here: the run of the newer commit deploys it. Nothing was touched."
  exit 1
fi
