#!/usr/bin/env bash
# comment.sh PULL_REQUEST STACK...: makes or edits the one comment with the previews in artifacts/preview/.
# Needs GH_TOKEN, which may write to pull requests.
set -euo pipefail

pull=$1
shift
comments="repos/$GITHUB_REPOSITORY/issues"
mark='<!-- previews -->'
body=$(mktemp)
trap 'rm -f "$body"' EXIT
echo "$mark" >"$body"
"$(dirname "$0")/reports.sh" artifacts/preview "$@" >>"$body"
# The mark in anybody else's comment is text.
ours=".[] | select(.user.login == \"github-actions[bot]\" and (.body // \"\" | startswith(\"$mark\"))) | .id"
found=$(gh api --paginate "$comments/$pull/comments?per_page=100" --jq "$ours")
if [ -n "$found" ]; then
  gh api --silent --method PATCH "$comments/comments/${found%%$'\n'*}" --field "body=@$body"
else
  gh api --silent --method POST "$comments/$pull/comments" --field "body=@$body"
fi
