# shellcheck shell=bash
# What a person sees while things are built or started: one line a step with the elapsed time. Not a logger: what the
# tools themselves print goes to files that these lines name.

STARTED=${EPOCHSECONDS}

# elapsed [SINCE]: seconds since SINCE (or since the script began) as "1m05s".
elapsed() {
  local seconds=$((EPOCHSECONDS - ${1:-$STARTED}))
  if ((seconds < 60)); then printf '%ds' "$seconds"; else printf '%dm%02ds' $((seconds / 60)) $((seconds % 60)); fi
}

say() { printf '%s  (%s)\n' "$*" "$(elapsed)" >&2; }

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# with_heartbeat LABEL LOG COMMAND…: runs COMMAND with its output in LOG; says every 15 s that it still runs; on failure
# shows the end of LOG.
with_heartbeat() {
  local label=$1 log=$2 since=$EPOCHSECONDS status=0 ticker
  shift 2
  # 8>&- 9>&-: what is left of it for a moment must not keep the caller's locks.
  (
    trap 'kill $! 2>/dev/null; exit 0' TERM
    while :; do
      # In the background, because a sleep in the foreground would hold back the TERM.
      sleep 15 &
      wait $!
      printf '%s … %s, %s lines in %s\n' "$label" "$(elapsed "$since")" "$(wc -l <"$log")" "$log" >&2
    done
  ) 8>&- 9>&- &
  ticker=$!
  # In the background, because `set -e` is off in whatever stands before `||`: a failed step would not end COMMAND.
  "$@" >"$log" 2>&1 &
  wait $! || status=$?
  kill "$ticker" 2>/dev/null || true
  wait "$ticker" 2>/dev/null || true
  if ((status != 0)); then
    tail -n 25 "$log" >&2
    fail "$label: exit status $status, see $log"
  fi
}

# wait_for SECONDS WHAT COMMAND…: polls COMMAND until it succeeds; exit status 3 means that it never will. On failure says
# what was awaited and what COMMAND printed last.
wait_for() {
  local seconds=$1 what=$2 deadline=$((EPOCHSECONDS + $1)) seen status
  shift 2
  while :; do
    status=0
    seen=$("$@" 2>&1) || status=$?
    ((status != 0)) || return 0
    ((status != 3)) || fail "$what: ${seen:-it ended}"
    ((EPOCHSECONDS < deadline)) || fail "waited $seconds s for $what; last seen: ${seen:-nothing}"
    sleep 0.3
  done
}
