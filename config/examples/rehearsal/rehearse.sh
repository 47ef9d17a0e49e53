#!/usr/bin/env bash
# A load rehearsal before a release, on one machine: the simulated service, the sidecar as configured for production,
# and three load tests with gates. An ordinary day, three times of what the service bears, and an ordinary day again:
# the last one shows that nothing of the peak stays behind.
#
#   rehearse.sh [FOLDER]      reports and logs go there, by default into a new folder
#
# DURATION (10s) of each test; RATE (20) and PEAK (150) requests per second; UPSTREAMS and CONFIG, other files.
# Against a staging copy instead of the simulator: ORDERS=staging.example:80 rehearse.sh
#
# Exit code: 0 every gate held, 3 one was missed, 4 a run means nothing because this machine was too busy.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
reports=${1:-$(mktemp -d)}
mkdir -p "$reports"
config=${CONFIG:-$here/forebay.toml}

started=()
trap '[ ${#started[@]} -eq 0 ] || kill "${started[@]}" 2>/dev/null || true; wait' EXIT

# Waits until the file has a line that matches, and prints the address in it.
address_in() {
  local file=$1 pattern=$2 line
  for _ in $(seq 300); do
    if line=$(grep -m 1 "$pattern" "$file"); then
      sed 's|.*http://\([0-9.:]*\).*|\1|' <<<"$line"
      return
    fi
    sleep 0.1
  done
  echo "rehearse: no line with '$pattern' within 30 s; see $file" >&2
  return 1
}

if [ -z "${ORDERS:-}" ]; then
  forebay simulate -c "${UPSTREAMS:-$here/upstreams.toml}" >"$reports/simulate.txt" &
  started+=($!)
  ORDERS=$(address_in "$reports/simulate.txt" '(orders)$')
fi

# Port 0: any free one.
export ORDERS FOREBAY_PORT=0 FOREBAY_ADMIN_PORT=0 NO_COLOR=1
forebay check -c "$config"
forebay run -c "$config" >"$reports/access.log" 2>"$reports/forebay.log" &
started+=($!)
target=http://$(address_in "$reports/forebay.log" '(main)')/orders/7
admin=http://$(address_in "$reports/forebay.log" '(admin)')

worst=0
# A load test by its name, rate and gates. The worst exit code is kept: void is worse than missed.
rehearse() {
  local name=$1 rate=$2 code=0
  shift 2
  echo "--- $name: $rate requests per second"
  forebay load "$target" --quiet --rate "$rate" --duration "${DURATION:-10s}" --seed 1 "$@" \
    --report-json "$reports/$name.json" --report-html "$reports/$name.html" || code=$?
  [ "$code" -le "$worst" ] || worst=$code
}

# Also when three times as much comes as the service bears, it serves what it bears, in time; the others learn within the
# queue's half second that they are not served.
rehearse before "${RATE:-20}" --fail 'p99<1500ms' --fail 'errors<1%'
rehearse peak "${PEAK:-150}" --fail 'p99<3s' --fail 'errors<85%' --fail 'connection_errors=0' --fail 'timeouts=0'
rehearse after "${RATE:-20}" --fail 'p99<1500ms' --fail 'errors<1%'

forebay healthcheck --url "$admin/readyz"
echo "--- why requests ended, from the access log"
awk -F'"reason":"' 'NF > 1 { split($2, word, "\""); count[word[1]]++ } END { for (r in count) print count[r], r }' \
  "$reports/access.log" | sort -rn
echo "reports are in $reports"
exit "$worst"
