#!/usr/bin/env bash
# Builds the programs of the cluster test bed, once, and prints where they are.
#
#   ./build.sh [kubernetes] [keda] [http-add-on] [istio]      the first two when none is named
#
# stdout: one line NAME=PATH per program or folder (this is what the test library reads). stderr: progress.
# What is built is kept under ${SLUICE_CACHE:-$HOME/.cache/sluice}/cluster/<part>-<key>/, where the key covers the
# module's go.mod and go.sum and the linker flags; with everything there, a run takes milliseconds.
# SLUICE_BUILD_JOBS limits how many compilations run at once (all cores unless told); linking takes about 2 GB.
set -euo pipefail
cd "$(dirname "$0")"
# shellcheck source=versions.env
source versions.env

say() { printf '%s\n' "$*" >&2; }
die() { say "build.sh: $*"; exit 1; }

# program | main package | minutes on two cold cores
kubernetes_programs='etcd|go.etcd.io/etcd/server/v3|0.5
kube-apiserver|k8s.io/kubernetes/cmd/kube-apiserver|3
kube-controller-manager|k8s.io/kubernetes/cmd/kube-controller-manager|1
kubectl|k8s.io/kubernetes/cmd/kubectl|0.5'
keda_programs='keda-operator|github.com/kedacore/keda/v2/cmd/operator|8
keda-adapter|github.com/kedacore/keda/v2/cmd/adapter|1'
http_add_on_programs='add-on-interceptor|github.com/kedacore/http-add-on/interceptor|3
add-on-operator|github.com/kedacore/http-add-on/operator|1
add-on-scaler|github.com/kedacore/http-add-on/scaler|0.5'
istio_programs='istiod|istio.io/istio/pilot/cmd/pilot-discovery|4
istioctl|istio.io/istio/istioctl/cmd/istioctl|1
pilot-agent|istio.io/istio/pilot/cmd/pilot-agent|0.5'

# Without these the API server calls itself v0.0.0, which clients that look at the version refuse.
kubernetes_ldflags() {
  local v=k8s.io/component-base/version minor=${KUBERNETES_VERSION#v1.}
  echo "-s -w -X $v.gitVersion=$KUBERNETES_VERSION -X $v.gitMajor=1 -X $v.gitMinor=${minor%%.*} -X $v.gitTreeState=clean"
}
keda_ldflags() { echo "-s -w -X github.com/kedacore/keda/v2/version.Version=${KEDA_VERSION#v}"; }
http_add_on_ldflags() { echo "-s -w"; }
istio_ldflags() {
  local v=istio.io/istio/pkg/version
  echo "-s -w -X $v.buildVersion=$ISTIO_RELEASE -X $v.buildGitRevision=${ISTIO_VERSION##*-} -X $v.buildStatus=Clean"
}

# The pins of versions.env and the committed go.mod must be the same thing.
check_pin() { # part module version
  grep -qE "^[[:space:]]*(require )?$2 $3( //.*)?\$" "$1/go.mod" \
    || die "$1/go.mod does not require $2 $3 as versions.env says: run ./pin.sh and commit what it writes"
}
check_kubernetes() {
  check_pin kubernetes k8s.io/kubernetes "$KUBERNETES_VERSION"
  check_pin kubernetes go.etcd.io/etcd/server/v3 "$ETCD_VERSION"
}
check_keda() { check_pin keda github.com/kedacore/keda/v2 "$KEDA_VERSION"; }
check_http_add_on() { check_pin http-add-on github.com/kedacore/http-add-on "$HTTP_ADD_ON_VERSION"; }
check_istio() { check_pin istio istio.io/istio "$ISTIO_VERSION"; }

# Runs "$@" and says every half minute that it still does.
with_progress() { # what command…
  local what=$1 began=$SECONDS pid; shift
  "$@" >&2 &
  pid=$!
  # The build must not outlive an interrupted script.
  trap 'kill "$pid" 2>/dev/null; exit 130' INT TERM
  while kill -0 "$pid" 2>/dev/null; do
    sleep 1
    (( (SECONDS - began) % 30 )) || say "  … $what: $((SECONDS - began)) s"
  done
  trap - INT TERM
  wait "$pid" || die "$what failed (see above)"
  say "  $what: done in $((SECONDS - began)) s"
}

# Builds one program to a name of its own first, so that an interrupted build leaves nothing that looks whole.
go_build() { # part ldflags package file
  cd "$1"
  CGO_ENABLED=0 nice -n 19 go build -p "${SLUICE_BUILD_JOBS:-$(nproc)}" -mod=readonly -trimpath -buildvcs=false \
    -ldflags "$2" -o "$4.new" "$3" && mv "$4.new" "$4"
}

part() { # part
  # What the shell's own names say with `_`.
  local part=$1 its=${1//-/_} key dir name package minutes
  "check_$its"
  key=$( { cat "$part/go.mod" "$part/go.sum"; "${its}_ldflags"; } | sha256sum | cut -c1-12)
  dir=$cache/$part-$key
  mkdir -p "$dir"
  while IFS='|' read -r name package minutes; do
    if [ ! -x "$dir/$name" ]; then
      need_go
      # One builder at a time; whoever waited finds the work done.
      exec 9> "$cache/lock"; flock 9
      if [ ! -x "$dir/$name" ]; then
        say "building $name (about $minutes min on two cores)"
        built=yes
        with_progress "$name" go_build "$part" "$("${its}_ldflags")" "$package" "$dir/$name"
      fi
      exec 9>&-
    fi
    echo "$name=$dir/$name"
  done < <(eval "echo \"\$${its}_programs\"")
  "after_$its" "$dir"
}

after_kubernetes() { :; }
# KEDA's CRDs, RBAC and Services come out of its module, so they are always those of the operator that was built.
after_keda() { # dir
  if [ ! -d "$1/manifests" ]; then
    need_go
    local config new=$1/manifests.new
    config=$(cd keda && go list -mod=readonly -m -f '{{.Dir}}' github.com/kedacore/keda/v2)/config
    rm -rf "$new"; mkdir "$new"
    cp "$config"/crd/bases/*.yaml "$config"/service_account/service_account.yaml "$new/"
    cp "$config/rbac/role.yaml" "$new/rbac-role.yaml"
    cp "$config/rbac/role_binding.yaml" "$new/rbac-role_binding.yaml"
    cp "$config/manager/service.yaml" "$new/operator-service.yaml"
    cp "$config/metrics-server/service.yaml" "$new/adapter-service.yaml"
    cp "$config/metrics-server/role.yaml" "$new/adapter-role.yaml"
    cp "$config/metrics-server/role_binding.yaml" "$new/adapter-role_binding.yaml"
    chmod -R u+w "$new"; mv "$new" "$1/manifests"
  fi
  echo "keda-manifests=$1/manifests"
}

# What the add-on's own kustomization deploys: its objects by their own names, of the version that was built.
after_http_add_on() { # dir
  if [ ! -d "$1/manifests" ]; then
    need_go
    local config new=$1/manifests.new
    config=$(cd http-add-on && go list -mod=readonly -m -f '{{.Dir}}' github.com/kedacore/http-add-on)/config
    rm -rf "$new"
    cp -r "$config" "$new"
    chmod -R u+w "$new"; mv "$new" "$1/manifests"
  fi
  echo "add-on-manifests=$1/manifests"
}

# Istio's CRDs and those of the Gateway API, each from the module that istiod was built with, and what istio-agent makes
# Envoy's bootstrap of.
after_istio() { # dir
  if [ ! -d "$1/manifests" ]; then
    need_go
    local new=$1/manifests.new istio gateway
    istio=$(cd istio && go list -mod=readonly -m -f '{{.Dir}}' istio.io/istio)
    gateway=$(cd istio && go list -mod=readonly -m -f '{{.Dir}}' sigs.k8s.io/gateway-api)
    rm -rf "$new"; mkdir "$new"
    cp "$istio/manifests/charts/base/files/crd-all.gen.yaml" "$new/istio-crds.yaml"
    # Beside them lies a policy, which is not wanted.
    grep -l '^kind: CustomResourceDefinition' "$gateway"/config/crd/standard/*.yaml | xargs cp -t "$new/"
    install -m 644 "$istio/tools/packaging/common/envoy_bootstrap.json" "$1/bootstrap.json"
    chmod -R u+w "$new"; mv "$new" "$1/manifests"
  fi
  echo "istio-manifests=$1/manifests"
  echo "istio-bootstrap=$1/bootstrap.json"
}

need_go() {
  command -v go > /dev/null || die "needs Go ($(sed -nE 's/^go //p' keda/go.mod) or later) to build the test bed: install it, or point KUBECONFIG at a cluster with KEDA"
}

# Go's build cache for this is 12 GB, and nothing of it is wanted again once the programs are there; so it is a folder of
# its own, and goes when all is built. What an interrupted build left is used by the next.
built=
drop_objects() {
  [ -n "$built" ] || return 0
  exec 9> "$cache/lock"; flock 9
  rm -rf "$cache/go-build"
  exec 9>&-
}

cache=${SLUICE_CACHE:-$HOME/.cache/sluice}/cluster
mkdir -p "$cache"
export GOCACHE=$cache/go-build
[ $# -gt 0 ] || set -- kubernetes keda
for wanted in "$@"; do
  case $wanted in
    kubernetes | keda | http-add-on | istio) part "$wanted" ;;
    *) die "unknown part '$wanted': kubernetes, keda, http-add-on or istio" ;;
  esac
done
drop_objects
