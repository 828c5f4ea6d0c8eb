#!/usr/bin/env bash
# Installs two servers that answer one request at a time, and prints the Python that runs them and, in the next line,
# the folder that has to be in its PYTHONPATH.
#
#   gunicorn   with its sync worker; closes every connection after its answer
#   pyuwsgi    with --http11-socket; keeps a connection, and waits on it
#
# They come from the Python package index and are kept in ${SLUICE_CACHE:-~/.cache/sluice}/wsgi/VERSIONS, once for all.
# The exit status is 77 where they cannot be had.
set -euo pipefail

packages=(gunicorn==23.0.0 packaging==25.0 pyuwsgi==2.0.30.post1)

say() { printf 'wsgi-install: %s\n' "$*" >&2; }
skip() { say "$*"; exit 77; }

cache=${SLUICE_CACHE:-$HOME/.cache/sluice}/wsgi
command -v python3 >/dev/null || skip "python3 is missing (Debian: apt-get install python3 python3-pip)"
python3 -m pip --version >/dev/null 2>&1 || skip "python3 has no pip (Debian: apt-get install python3-pip)"
# One of them is compiled for a line of Python.
python=$(python3 -c 'import sys; print(sys.executable)')
line=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
folder=$cache/$(IFS=_; echo "${packages[*]//==/-}")-python$line
if [ ! -d "$folder" ]; then
  mkdir -p "$cache"
  work=$(mktemp -d "$cache/.install.XXXXXX")
  # shellcheck disable=SC2064  # $work as it is now
  trap "rm -rf '$work'" EXIT
  say "fetching ${packages[*]} (once; kept in $folder)"
  "$python" -m pip install --quiet --no-deps --only-binary :all: --disable-pip-version-check --root-user-action ignore \
    --target "$work" "${packages[@]}" >&2 ||
    skip "pip could not fetch ${packages[*]} (its words are above)"
  chmod 755 "$work"
  # Whoever was faster has the same.
  mv -T "$work" "$folder" 2>/dev/null || rm -rf "$work"
  trap - EXIT
fi
printf '%s\n' "$python" "$folder"
