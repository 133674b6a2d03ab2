#!/usr/bin/env bash
# reports.sh FOLDER STACK...: prints the reports FOLDER/STACK.md as one text, which fits into a comment or an issue (65,536 characters).
# Those of previews were written by a pull request's code: they are data here.
set -euo pipefail

folder=$1
shift
run="$GITHUB_SERVER_URL/$GITHUB_REPOSITORY/actions/runs/$GITHUB_RUN_ID"
commit=${COMMIT:-$GITHUB_SHA}
# First, where no report can hide it behind an open block.
echo "Commit \`${commit:0:10}\`, [the run and its artefacts]($run)"
room=64000
for stack in "$@"; do
  report="$folder/$stack.md"
  printf '\n---\n\n'
  # A link could lead to any file of this job.
  if [ ! -f "$report" ] || [ -L "$report" ]; then
    printf '## %s\n\nNo report: its job has failed, or waits for its approval. The run says which.\n' "$stack"
  elif size=$(wc -c <"$report") && [ "$size" -gt "$room" ]; then
    printf '## %s\n\nThe report is too long for here: it is among the artefacts of the run.\n' "$stack"
  else
    room=$((room - size))
    cat "$report"
  fi
done
