#!/usr/bin/env bash
# reviewed.sh STACK: fetches the plan that came with the merged pull request, with its report, into artifacts/preview/.
# Says plan=FILE in GITHUB_OUTPUT if there is one for this very tree. Needs GH_TOKEN, which may read artefacts and pull requests.
set -euo pipefail

stack=$1
repository="repos/$GITHUB_REPOSITORY"
commit=$(git rev-parse HEAD)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
name="preview-$stack-$(git rev-parse 'HEAD^{tree}')"
# The last commits of the pull requests that were merged as this commit.
heads=$(gh api --paginate "$repository/commits/$commit/pulls?per_page=100" \
  --jq ".[] | select(.merged_at and .merge_commit_sha == \"$commit\") | .head.sha")
for head in $heads; do
  # The newest first. Runs for forks are in the same list, also for the same commit.
  runs=$(gh api --paginate "$repository/actions/workflows/preview.yml/runs?event=pull_request&head_sha=$head&per_page=100" \
    --jq '.workflow_runs[] | select(.head_repository.id == .repository.id) | .id')
  for run in $runs; do
    kept=$(gh api "$repository/actions/runs/$run/artifacts?name=$name" --jq '.artifacts[] | select(.expired | not) | .id')
    [ -n "$kept" ] || continue
    gh run download "$run" --repo "$GITHUB_REPOSITORY" --name "$name" --dir "$folder/$run"
    # A preview that failed has a report, and no plan.
    [ -f "$folder/$run/$stack.plan.json" ] || continue
    mkdir -p artifacts/preview
    cp "$folder/$run/$stack.plan.json" "$folder/$run/$stack.md" artifacts/preview/
    echo "plan=artifacts/preview/$stack.plan.json" >>"$GITHUB_OUTPUT"
    echo "The plan is the one of run $run, as it was reviewed."
    exit 0
  done
done
echo "No preview of $stack for this tree came with a merged pull request: a new plan has to be made."
