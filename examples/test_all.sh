#!/usr/bin/env bash
# Sends every example to a running relay, checks each response and the stored data, and exits non-zero if anything is
# wrong. Repeatable against the same data. Needs bash, curl and python3.
#
#   RELAY_URL=http://127.0.0.1:8000 API_KEY=... examples/test_all.sh
#
# If the sessions of the examples hold something else already, such as examples that were sent in another order,
# `test_all.sh --fresh` deletes these sessions first.
set -uo pipefail

: "${RELAY_URL:?is not set. It is the address of the relay, such as http://127.0.0.1:8000; make up prints it}"
: "${API_KEY:?is not set. It is a key of that relay; make up prints one}"
if [[ ! $RELAY_URL =~ ^(https://|http://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]+)?(/|$)) ]]; then
  echo "$RELAY_URL is neither encrypted (https://) nor on this machine, so no key is sent there." >&2
  exit 2
fi
if [[ $# -gt 0 && $* != --fresh ]]; then
  echo "Usage: examples/test_all.sh [--fresh]" >&2
  exit 2
fi
LIMIT_SECONDS=${LIMIT_SECONDS:-300} # For all of it; it takes some seconds.

for program in curl python3; do
  command -v "$program" >/dev/null || { echo "test_all.sh needs $program." >&2; exit 2; }
done

examples=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# The key is in a file, so that process lists do not show it.
printf 'X-API-Key: %s\n' "$API_KEY" >"$folder/key"

# Sends the planned requests one after the other, and prints the number and status of each response. One curl sends them
# all: the connection is opened once.
send_all() {
  local number status problem=""
  mkfifo "$folder/statuses"
  curl -sS --fail-early --config "$folder/requests" >/dev/null 2>"$folder/statuses" &
  while [[ -z $problem ]] && read -r number status; do
    if [[ ! "$number $status" =~ ^[0-9]+\ [1-9][0-9][0-9]$ ]]; then
      problem="No answer from $RELAY_URL. $number $status"
    else
      echo "$number $status"
      ((SECONDS <= LIMIT_SECONDS)) || problem="Given up after $LIMIT_SECONDS seconds."
      [[ $status != 202 ]] || problem="It was accepted, but not applied within 30 seconds: is a worker running?"
    fi
  done <"$folder/statuses"
  [[ $problem ]] || return 0
  echo "$problem" >&2
  kill $! 2>/dev/null
  wait $! 2>/dev/null
  return 2
}

python3 -B "$examples/check.py" plan "$folder" "$@" || exit 2
send_all | python3 -B "$examples/check.py" answers "$folder" "$@"
