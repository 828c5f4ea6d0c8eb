#!/usr/bin/env bash
# Builds the filter to target/filter/sluice_filter.wasm and prints its path, size and sha256.
# Another package of the workspace, by its name, is built in the same way (the bench's empty filter is).
#
# Wasm needs a standard library for wasm32-unknown-unknown. In this order: the one that rustup has for the pinned
# toolchain, the one that rustup can add, the distribution's compiler with its own library source (a matched
# set: one compiler with another's source does not build). SLUICE_WASM_TOOLCHAIN=rustup|distribution picks one.
# SLUICE_WASM_OUT names another folder than target/filter.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

readonly target=wasm32-unknown-unknown
readonly out=${SLUICE_WASM_OUT:-$PWD/target/filter}
readonly build=$PWD/target/filter-build
readonly packages=(rustc-web cargo-web rust-web-src)
readonly package=${1:-sluice-filter}
readonly module=${package//-/_}.wasm
toolchain=$(sed -n 's/^channel *= *"\(.*\)"/\1/p' rust-toolchain.toml)

say() { printf 'wasm-build: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

has_rustup_target() {
  command -v rustup >/dev/null || return 1
  rustup target list --installed --toolchain "$toolchain" 2>/dev/null | grep -qx "$target"
}

add_rustup_target() {
  command -v rustup >/dev/null || return 1
  # Once refused, it is not asked for again on every build.
  local refused=$PWD/target/.no-rustup-target-$toolchain
  [ -e "$refused" ] && return 1
  say "asking rustup for $target of $toolchain"
  if timeout 300 rustup target add "$target" --toolchain "$toolchain" >&2 2>/dev/null; then return 0; fi
  mkdir -p target && touch "$refused"
  say "rustup cannot get it here: taking the distribution's compiler"
  return 1
}

# The distribution's compiler, if it and its library source are one version.
has_distribution() {
  [ -x /usr/bin/rustc ] && [ -x /usr/bin/cargo ] || return 1
  [ -e "$(/usr/bin/rustc --print sysroot)/lib/rustlib/src/rust/library/Cargo.lock" ]
}

install_distribution() {
  command -v apt-get >/dev/null || die "install rustup and run: rustup target add $target --toolchain $toolchain"
  [ "$(id -u)" = 0 ] || die "run as root: apt-get install ${packages[*]} lld (or: rustup target add $target --toolchain $toolchain)"
  say "installing ${packages[*]} with apt-get (about 250 MB)"
  apt-get update -qq >&2
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >&2
  has_distribution || die "${packages[*]} are installed, but /usr/bin/rustc has no library source: apt-get install rust-web-src"
}

# Puts a linker named rust-lld on PATH: rustup's toolchains carry one, and lld's wasm-ld is the same program.
find_linker() {
  command -v rust-lld >/dev/null && return
  local dir
  dir=$(rustc --print sysroot 2>/dev/null)/lib/rustlib/$(rustc -vV 2>/dev/null | sed -n 's/^host: //p')/bin
  if [ -x "$dir/rust-lld" ]; then PATH=$PATH:$dir; return; fi
  if ! command -v wasm-ld >/dev/null; then
    { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; } || die "a linker is missing: install lld"
    say "installing lld with apt-get"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends lld >&2
  fi
  mkdir -p "$build/bin" && ln -sf "$(command -v wasm-ld)" "$build/bin/rust-lld" && PATH=$PATH:$build/bin
}

# Paths of this machine must not reach the module, or no two folders would give the same bytes.
remap() {
  local flags="--remap-path-prefix=$PWD=/sluice --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
  printf '%s --remap-path-prefix=%s=/rust' "$flags" "$1"
}

args=(build --locked -p "$package" --lib --profile wasm --target "$target" --target-dir "$build")
how=${SLUICE_WASM_TOOLCHAIN:-}
if [ "$how" != distribution ] && { has_rustup_target || add_rustup_target; }; then
  say "compiling with rustup's $toolchain"
  RUSTFLAGS=$(remap "$(rustc "+$toolchain" --print sysroot)") cargo "+$toolchain" rustc "${args[@]:1}" --crate-type cdylib
else
  [ "$how" = rustup ] && die "rustup has no $target for $toolchain"
  has_distribution || install_distribution
  find_linker
  say "compiling with the distribution's $(/usr/bin/rustc --version) (its standard library too: a minute the first time)"
  # RUSTC_BOOTSTRAP: building the standard library is an unstable flag of a stable compiler. RUSTUP_TOOLCHAIN is
  # rustup's and means nothing here.
  RUSTC_BOOTSTRAP=1 RUSTC=/usr/bin/rustc RUSTFLAGS=$(remap "$(/usr/bin/rustc --print sysroot)") \
    /usr/bin/cargo rustc "${args[@]:1}" -Zbuild-std=std,panic_abort --crate-type cdylib
fi

mkdir -p "$out"
install -m 0644 "$build/$target/wasm/$module" "$out/$module.new"
mv "$out/$module.new" "$out/$module"
printf '%s %s bytes sha256:%s\n' "$out/$module" "$(stat -c %s "$out/$module")" \
  "$(sha256sum "$out/$module" | cut -d' ' -f1)"
