#!/usr/bin/env bash
# Model-checks the crossing between shards (crossing.pml): it holds with every rule, and every rule removed is caught.
#   tests/spin/run.sh [--server IGNORED] [WORD]...     only checks whose name contains a WORD
# Needs spin and a C compiler; about a minute of one core and half a gigabyte.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"

# name, scenario, what is switched off, and the complaint the verifier must end with ("holds": none).
checks="
holds.request_through_three        CHAIN  -                     holds
holds.subscription_before_pong     PONG   -                     holds
holds.flush_then_flush             FLUSH  -                     holds
holds.flush_behind_stuck_interest  STUCK  -                     holds
holds.floods_both_ways             CROSS  -                     holds
caught.late_acquire                PONG   LATE_ACQUIRE          knows
caught.late_acquire.flush          FLUSH  LATE_ACQUIRE          had==
caught.think_before_drain          PONG   THINK_BEFORE_DRAIN    knows
caught.deliveries_first            CHAIN  DELIVERIES_FIRST      knows
caught.flush_before_publish        PONG   FLUSH_BEFORE_PUBLISH  knows
caught.flush_before_publish.flush  FLUSH  FLUSH_BEFORE_PUBLISH  had==
caught.publish_while_stuck         CHAIN  PUBLISH_WHILE_STUCK   knows
caught.flush_while_stuck           PONG   FLUSH_WHILE_STUCK     knows
caught.flush_while_stuck.flush     STUCK  FLUSH_WHILE_STUCK     had==
caught.quiet_while_stuck           STUCK  QUIET_WHILE_STUCK     q_len(deliver
caught.no_session_hold             FLUSH  NO_SESSION_HOLD       had==
caught.no_sleeper_fence            FLUSH  NO_SLEEPER_FENCE      q_len(deliver
caught.no_waker_fence              FLUSH  NO_WAKER_FENCE        q_len(deliver
caught.check_before_flag           FLUSH  CHECK_BEFORE_FLAG     q_len(deliver
caught.wake_nobody                 FLUSH  WAKE_NOBODY           q_len(deliver
caught.no_retry                    FLUSH  NO_RETRY              q_len(d_over
"

words=()
while (($#)); do
  case "$1" in
    -h|--help) sed -n '2,4s/^# \{0,1\}//p' "$0"; exit 0 ;;
    --server) shift ;;  # for those who run every suite alike: there is no server here
    --server=*) ;;
    *) words+=("$1") ;;
  esac
  shift || true
done

for tool in spin cc; do
  command -v "$tool" >/dev/null || { echo "FAIL tools: no $tool"; echo "0 passed, 1 failed"; exit 1; }
done
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

# Prints nothing if the check came out as expected, else why not.
verify() {
  local scenario=$1 without=$2 expected=$3 said optimise=-O1
  [[ $expected == holds ]] || optimise=-O0  # found at once: the compiler would take longer than the verifier
  local defines=("-D$scenario")
  [[ $without == - ]] || defines+=("-D$without")
  rm -rf "${work:?}/pan" && mkdir "$work/pan" && cd "$work/pan"
  said="$(spin "${defines[@]}" -a "$here/crossing.pml" 2>&1)" || { echo "spin: $said"; return; }
  said="$(cc $optimise -w -DSAFETY -DCOLLAPSE -DMEMLIM=1500 -o pan pan.c 2>&1)" || { echo "cc: $said"; return; }
  said="$(timeout 300 ./pan -m1000000 -n 2>&1)" || { echo "the verifier did not end: ${said: -200}"; return; }
  # Reached limits and unfinished searches prove nothing.
  if grep -qE 'max search depth too small|Search not completed|reached -DMEMLIM' <<<"$said" && [[ $expected == holds ]]; then
    echo "search not completed"
    return
  fi
  local complaint
  complaint="$(grep -m1 -E '^pan:[0-9]+: ' <<<"$said" || true)"
  if [[ $expected == holds ]]; then
    grep -q 'errors: 0' <<<"$said" || echo "${complaint:-no verdict: ${said: -200}}"
  elif [[ -z $complaint ]]; then
    echo "not caught: the model holds without the rule"
  elif [[ $complaint != *"assertion violated"*"$expected"* ]]; then
    echo "caught by something else: $complaint"
  fi
}

passed=0 failed=0
while read -r name scenario without expected; do
  [[ -n $name ]] || continue
  if ((${#words[@]})); then
    chosen=
    for word in "${words[@]}"; do [[ $name != *"$word"* ]] || chosen=1; done
    [[ -n $chosen ]] || continue
  fi
  reason="$(verify "$scenario" "$without" "$expected")"
  if [[ -z $reason ]]; then
    passed=$((passed + 1))
    echo "ok $name"
  else
    failed=$((failed + 1))
    echo "FAIL $name: $reason"
  fi
done <<<"$checks"
echo "$passed passed, $failed failed"
((failed == 0 && passed > 0))
