#!/usr/bin/env bash
# drift-issue.sh STACK...: opens, updates or closes the one issue with the label "drift", by what drift.sh has left in artifacts/drift/.
# Needs GH_TOKEN, which may write issues.
set -euo pipefail

issues="repos/$GITHUB_REPOSITORY/issues"
drifted=false known=true
for stack in "$@"; do
  case "$(cat "artifacts/drift/$stack.status" || true)" in
    0) ;;
    3) drifted=true ;;
    *) known=false ;;
  esac
done
number=$(gh api "$issues?labels=drift&state=open&per_page=100" \
  --jq '[.[] | select(.user.login == "github-actions[bot]" and (has("pull_request") | not)) | .number] | min // empty')
body=$(mktemp)
trap 'rm -f "$body"' EXIT
"$(dirname "$0")/reports.sh" artifacts/drift "$@" >"$body"
if [ -z "$number" ] && $drifted; then
  # Without the label, the next night would not find it.
  gh label create drift --repo "$GITHUB_REPOSITORY" --force --color d93f0b --description "What runs is not what was deployed"
  gh api --silent --method POST "$issues" --field "title=What runs is not what was deployed" --field "labels[]=drift" --field "body=@$body"
elif [ -n "$number" ] && $known && ! $drifted; then
  gh api --silent --method POST "$issues/$number/comments" --field "body=Nothing has drifted any more."
  gh api --silent --method PATCH "$issues/$number" --field state=closed --field state_reason=completed
elif [ -n "$number" ]; then
  gh api --silent --method PATCH "$issues/$number" --field "body=@$body"
fi
