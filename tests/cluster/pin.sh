#!/usr/bin/env bash
# Writes go.mod and go.sum of kubernetes/, keda/, http-add-on/ and istio/ from versions.env. Run it after changing a version,
# and commit what it writes. A main package named by a `tool` line needs no Go source of our own.
set -euo pipefail
cd "$(dirname "$0")"
# shellcheck source=versions.env
source versions.env

# Where the module cache keeps the go.mod of $1@$2. (-mod=mod: there is no module here to be changed.)
upstream_go_mod() { (cd "$(dirname "$0")" && GOFLAGS=-mod=mod go list -m -f '{{.GoMod}}' "$1@$2"); }
# The lines "go X" and "godebug X" of a go.mod: the language version decides the defaults of the Go runtime.
language() { sed -nE 's/^((go|godebug|toolchain) .*)$/\1\n/p' "$1"; }

pin_kubernetes() {
  local upstream; upstream=$(upstream_go_mod k8s.io/kubernetes "$KUBERNETES_VERSION")
  {
    printf 'module sluice.dev/tests/cluster/kubernetes\n\n'
    language "$upstream"
    printf 'tool (\n\tgo.etcd.io/etcd/server/v3\n\tk8s.io/kubernetes/cmd/kube-apiserver\n'
    printf '\tk8s.io/kubernetes/cmd/kube-controller-manager\n\tk8s.io/kubernetes/cmd/kubectl\n)\n\n'
    printf 'require (\n\tgo.etcd.io/etcd/server/v3 %s\n\tk8s.io/kubernetes %s\n)\n\n' "$ETCD_VERSION" "$KUBERNETES_VERSION"
    # Kubernetes replaces its staging modules by folders of its own tree; outside it they are released as v0.x.
    printf 'replace (\n'
    sed -nE "s|^\t(k8s.io/[a-z-]+) => ./staging.*|\t\1 => \1 $KUBERNETES_STAGING_VERSION|p" "$upstream"
    printf ')\n'
  } > kubernetes/go.mod
}

pin_keda() {
  local upstream; upstream=$(upstream_go_mod github.com/kedacore/keda/v2 "$KEDA_VERSION")
  {
    printf 'module sluice.dev/tests/cluster/keda\n\n'
    language "$upstream"
    printf 'tool (\n\tgithub.com/kedacore/keda/v2/cmd/adapter\n\tgithub.com/kedacore/keda/v2/cmd/operator\n)\n\n'
    printf 'require github.com/kedacore/keda/v2 %s\n\n' "$KEDA_VERSION"
    # A module's own replacements do not reach those who require it.
    sed -nE '/^replace [^(]/p' "$upstream"
  } > keda/go.mod
}

pin_http_add_on() {
  local module=github.com/kedacore/http-add-on upstream
  upstream=$(upstream_go_mod $module "$HTTP_ADD_ON_VERSION")
  {
    printf 'module sluice.dev/tests/cluster/http-add-on\n\n'
    language "$upstream"
    printf 'tool (\n\t%s/interceptor\n\t%s/operator\n\t%s/scaler\n)\n\n' $module $module $module
    printf 'require %s %s\n\n' $module "$HTTP_ADD_ON_VERSION"
    sed -nE '/^replace [^(]/p' "$upstream"
  } > http-add-on/go.mod
}

pin_istio() {
  local upstream; upstream=$(upstream_go_mod istio.io/istio "$ISTIO_VERSION")
  {
    printf 'module sluice.dev/tests/cluster/istio\n\n'
    language "$upstream"
    printf 'tool (\n\tistio.io/istio/istioctl/cmd/istioctl\n\tistio.io/istio/pilot/cmd/pilot-agent\n'
    printf '\tistio.io/istio/pilot/cmd/pilot-discovery\n)\n\n'
    printf 'require istio.io/istio %s\n\n' "$ISTIO_VERSION"
    printf 'replace (\n'
    local envoy=github.com/envoyproxy/go-control-plane
    printf '\t%s => %s %s\n' \
      $envoy/contrib $envoy/contrib "$ISTIO_ENVOY_CONTRIB_VERSION" \
      $envoy/envoy $envoy/envoy "$ISTIO_ENVOY_VERSION" \
      istio.io/api istio.io/api "$ISTIO_API_VERSION" \
      istio.io/client-go istio.io/client-go "$ISTIO_API_VERSION"
    printf ')\n'
  } > istio/go.mod
}

# Those named, or all.
[ $# -gt 0 ] || set -- kubernetes keda http-add-on istio
for part in "$@"; do
  mkdir -p "$part"
  "pin_${part//-/_}"
  : > "$part/go.sum"
  (cd "$part" && go mod tidy)
done
