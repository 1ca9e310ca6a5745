#!/usr/bin/env bash
# Sends every example to a running relay, checks each answer and what is stored then, and exits non-zero if anything is
# not as it must be. It may be run any number of times against the same data. Needs bash, curl and python3.
#
#   RELAY_URL=http://127.0.0.1:8000 API_KEY=... examples/test_all.sh
set -uo pipefail

: "${RELAY_URL:?is not set. It is the address of the relay, such as http://127.0.0.1:8000; make up prints it}"
: "${API_KEY:?is not set. It is a key of that relay; make up prints one}"
RELAY_URL=${RELAY_URL%/}
LIMIT_SECONDS=${LIMIT_SECONDS:-300} # For all of it; on a small machine it takes about ten.

for program in curl python3; do
  command -v "$program" >/dev/null || { echo "test_all.sh needs $program." >&2; exit 2; }
done

examples=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# In a file, so that the key stands in no list of processes.
printf 'X-API-Key: %s\n' "$API_KEY" >"$folder/key"
: >"$folder/none"

python3 -B "$examples/check.py" plan "$folder" >"$folder/plan" || exit 2

wrong=0 checked=0
while read -r number method key path; do
  if ((SECONDS > LIMIT_SECONDS)); then
    echo "Given up after $LIMIT_SECONDS seconds." >&2
    exit 2
  fi
  body=()
  [[ $method == POST ]] && body=(-H 'Content-Type: application/json' --data-binary "@$folder/$number.body")
  : >"$folder/answer"
  status=$(curl -sS --max-time 45 -o "$folder/answer" -w '%{http_code}' -X "$method" -H "@$folder/$key" \
    ${body[@]+"${body[@]}"} "$RELAY_URL$path")
  if [[ $? -ne 0 || $status == 000 ]]; then
    echo "No answer from $RELAY_URL." >&2
    exit 2
  fi
  python3 -B "$examples/check.py" answer "$folder" "$number" "$status" || wrong=$((wrong + 1))
  checked=$((checked + 1))
  if [[ $method == POST && $status == 202 ]]; then
    echo "It was accepted, but not applied within 30 seconds: is a worker running?" >&2
    exit 2
  fi
done <"$folder/plan"

if ((wrong)); then
  echo "$wrong of $checked answers are not as they must be."
  exit 1
fi
echo "All $checked answers are as they must be."
