#!/usr/bin/env bash
# Whether the cluster test bed can run here: exit status 0, or 77 with the reason in the last line. As root on a
# machine with apt-get, small packages that are missing are installed.
set -uo pipefail
cd "$(dirname "$0")"

packages=() missing=()
want() { # command package
  command -v "$1" > /dev/null && return
  missing+=("$1 (Debian: apt-get install $2)") packages+=("$2")
}
want ip iproute2
want nsenter util-linux
want setpriv util-linux
want unshare util-linux
want curl curl

if [ "${#packages[@]}" -gt 0 ] && [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
  echo "installing ${packages[*]}"
  apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y "${packages[@]}" && missing=()
fi
wanted=$(sed -nE 's/^go //p' keda/go.mod)
# Nothing has to be built twice; build.sh says so should there be no Go when it needs one.
built=$(ls -d "${SLUICE_CACHE:-$HOME/.cache/sluice}"/cluster/*/ 2> /dev/null)
if ! command -v go > /dev/null && [ -z "$built" ]; then
  missing+=("go $wanted or later (https://go.dev/doc/install)")
fi
if [ "${#missing[@]}" -gt 0 ]; then
  printf 'missing: %s\n' "$(IFS=,; echo "${missing[*]}" | sed 's/,/, /g')"
  exit 77
fi
if ! unshare --net --mount --propagation private -- true 2> /dev/null; then
  echo "no network namespace can be made: run it as root, or in a shell inside 'unshare -Urm'"
  exit 77
fi
