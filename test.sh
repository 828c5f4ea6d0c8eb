#!/usr/bin/env bash
# The tests, or one layer of them.
#
#   ./test.sh            all of them
#   ./test.sh unit       formatting, lints, every crate's own tests, the module's size and reproducibility, licences
#   ./test.sh envoy      the filter and the scaler on the real Envoy
#   ./test.sh cluster    on a real Kubernetes with the real KEDA
#   ./test.sh istio      in a gateway of the real Istio, on that Kubernetes
#
# The layers cluster and istio build Kubernetes, KEDA and Istio from source the first time: half an hour on two cores,
# once. They need root (or a shell inside `unshare -Urm`) and Go; where the bed cannot run, they are skipped, and said to be.
#
# The last line is "N passed, N failed, N skipped", over all that ran; the exit status is 0 if nothing failed.
# Needs what ./demo.sh needs.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# What is built here is mostly built once; the incremental cache would be as large as all the rest.
export CARGO_INCREMENTAL=${CARGO_INCREMENTAL-0}

passed=0 failed=0 skipped=0
failures=()

say() { printf '\n== %s\n' "$*"; }

# One check that passes, fails, or (exit status 77) says in its last line why it was skipped.
check() {
  local name=$1 output code
  shift
  say "$name"
  output=$(mktemp)
  "$@" 2>&1 | tee "$output"
  code=${PIPESTATUS[0]}
  case $code in
    0) passed=$((passed + 1)) ;;
    77) skipped=$((skipped + 1)); echo "skipped: $name: $(tail -n 1 "$output")" ;;
    *) failed=$((failed + 1)); failures+=("$name") ;;
  esac
  rm -f "$output"
  return "$code"
}

# cargo test: counts the tests themselves. One that cargo could not even build counts as one failure, and one that says
# "passed over: " where it cannot run is skipped.
cargo_test() {
  local name=$1 output code counts over
  shift
  say "$name"
  output=$(mktemp)
  cargo test --locked --no-fail-fast "$@" 2>&1 | tee "$output"
  code=${PIPESTATUS[0]}
  counts=$(sed -n 's/^test result: .* \([0-9]*\) passed; \([0-9]*\) failed; \([0-9]*\) ignored.*/\1 \2 \3/p' "$output" |
    awk '{p += $1; f += $2; i += $3} END {print p + 0, f + 0, i + 0}')
  read -r p f i <<<"$counts"
  if [ "$code" != 0 ] && [ "$f" = 0 ]; then f=1; fi
  over=$(grep -c '^passed over: ' "$output")
  passed=$((passed + p - over)) failed=$((failed + f)) skipped=$((skipped + i + over))
  if [ "$f" != 0 ]; then
    failures+=("$name")
    while read -r test; do failures+=("  $test"); done < <(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$output")
  fi
  rm -f "$output"
}

need() {
  command -v "$1" >/dev/null && return
  echo "test: $1 is missing: $2"
  failed=$((failed + 1)) failures+=("$1 is missing")
  return 1
}

crates() { cargo metadata --locked --no-deps --format-version 1 | python3 -c '
import json, sys
print(*sorted(package["name"] for package in json.load(sys.stdin)["packages"]), sep="\n")'; }

# Built together, crates lend each other their dependencies'"'"' features; built alone they cannot.
each_crate_alone() {
  local crate
  for crate in $(crates); do
    echo "cargo check -p $crate"
    cargo check --locked --quiet -p "$crate" || return 1
  done
}

wasm() { check "the filter's module builds" ./wasm-build.sh; }

layer_unit() {
  check "formatting" cargo fmt --all --check
  check "lints" cargo clippy --locked --workspace --all-targets -- -D warnings
  wasm || return
  cargo_test "crates" --workspace --exclude sluice-tests
  cargo_test "the test bed, the repository and the module" -p sluice-tests --lib --bins --test 'repo_*' --test 'wasm_*'
  check "each crate builds alone" each_crate_alone
  check "licences, duplicates, sources" tests/deny.sh rules
  check "advisories" tests/deny.sh advisories
}

layer_envoy() {
  wasm || return
  check "Envoy, every tested line" tests/envoy-install.sh --lines || return
  check "the scaler, the app and the stand-in build" cargo build --locked -p sluice-scaler -p sluice-tests --bins || return
  # Two at a time: each has an Envoy and a scaler of its own, and a machine has two cores at least.
  cargo_test "on the real Envoy" -p sluice-tests --test 'envoy_*' -- --test-threads=2
  # That every part still gives its figures; what they are is no test's business.
  check "the bench, in short" bench/run.sh --smoke
}

layer_cluster() {
  # With a cluster of one's own nothing is built, and kubectl is one's own.
  if [ -z "${SLUICE_TEST_KUBECONFIG-}" ]; then
    check "a Kubernetes can run here" tests/cluster/possible.sh || return
    check "Kubernetes and KEDA build" tests/cluster/build.sh || return
  fi
  wasm || return
  check "Envoy" tests/envoy-install.sh || return
  check "the scaler, the operator and the app build" cargo build --locked -p sluice-scaler -p sluice-operator -p sluice-tests --bins || return
  cargo_test "on a real Kubernetes with KEDA" -p sluice-tests --test 'cluster_*'
}

layer_istio() {
  if [ -n "${SLUICE_TEST_KUBECONFIG-}" ]; then
    echo "test: the layer istio runs on the bed only: its gateways are the bed's own"
    skipped=$((skipped + 1))
    return
  fi
  check "a Kubernetes can run here" tests/cluster/possible.sh || return
  wasm || return
  check "Kubernetes, KEDA, its add-on and Istio build" tests/cluster/build.sh kubernetes keda http-add-on istio || return
  check "Envoy, every tested line" tests/envoy-install.sh --lines || return
  check "the scaler, the operator and the app build" cargo build --locked -p sluice-scaler -p sluice-operator -p sluice-tests --bins || return
  cargo_test "in the gateway of a real Istio" -p sluice-tests --test 'istio_*'
}

case ${1-} in
  "") layers=(unit envoy cluster istio) ;;
  unit | envoy | cluster | istio) layers=("$1") ;;
  -h | --help) sed -n '2,16s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
  *) echo "test: there is no layer '$1'; there are unit, envoy, cluster and istio" >&2; exit 2 ;;
esac

if need cargo "install rustup (https://rustup.rs)" && need cc "Debian: apt-get install gcc libc6-dev" &&
  need python3 "Debian: apt-get install python3 python3-pip"; then
  for layer in "${layers[@]}"; do "layer_$layer"; done
fi

if [ "${#failures[@]}" -gt 0 ]; then
  say "failed"
  printf '%s\n' "${failures[@]}"
fi
echo
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
