# Sourced by the opt-in checks: where their tools are kept, and how they come there.
# shellcheck shell=bash
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(cd "$here/../.." && pwd)
tools=${MESH_TOOLS:-$repository/target/mesh-tools}
mkdir -p "$tools/bin"
export work
work=$(mktemp -d)

say() { printf '\n== %s (%s s)\n' "$1" "$SECONDS"; }
fail() { printf 'FAILED: %s\n' "$1" >&2; exit 1; }

# A TCP port of 127.0.0.1 that is free now.
port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# go_tool NAME MODULE@VERSION
go_tool() {
  test -x "$tools/bin/$1" || GOBIN=$tools/bin go install "$2"
}

# python_package PACKAGE: into a folder of its own, whose name is printed
python_package() {
  local folder=$tools/$1
  test -d "$folder" || python3 -m pip install --quiet --no-deps --disable-pip-version-check --root-user-action ignore \
    --target "$folder" "$1" >&2
  echo "$folder"
}

# Its control plane runs in one check, and its definitions serve in another.
export gateway_version=v1.9.1

# module_folder MODULE@VERSION: where a Go module's files are
module_folder() {
  (cd "$work" && go mod download -json "$1") | python3 -c 'import json, sys; print(json.load(sys.stdin)["Dir"])'
}

# definitions FOLDER: the custom resources that the chart knows, out of the Go modules that own them
definitions() {
  mkdir -p "$1"
  cp "$(module_folder github.com/prometheus-operator/prometheus-operator@v0.83.0)"/example/prometheus-operator-crd/monitoring.coreos.com_{servicemonitors,podmonitors,prometheusrules}.yaml \
    "$(module_folder "github.com/envoyproxy/gateway@$gateway_version")"/charts/gateway-helm/charts/crds/crds/generated/gateway.envoyproxy.io_securitypolicies.yaml \
    "$(module_folder sigs.k8s.io/gateway-api@v1.6.1)"/config/crd/standard/gateway.networking.k8s.io_referencegrants.yaml "$1"
  cp "$(module_folder github.com/projectcontour/contour@v1.33.8)"/examples/contour/01-crds.yaml "$1"/contour.yaml
  # Of the version that istio.sh's istioctl is built with.
  cp "$(module_folder istio.io/api@v1.31.0-rc.0.0.20260824154656-b943409680a7)"/kubernetes/customresourcedefinitions.gen.yaml "$1"
}

PYTHONPATH=$(python_package helm-python-sdk==0.2.2)
export PYTHONPATH PYTHONDONTWRITEBYTECODE=1

# refused RIGHT SED COMMAND...: RIGHT with a mistake, which the command must not take; what it says is in $work/said
refused() {
  local right=$1 mistake=$2
  shift 2
  sed "$mistake" "$right" > "$work/broken.yaml"
  ! cmp -s "$right" "$work/broken.yaml" || fail "$mistake changes nothing"
  ! "$@" "$work/broken.yaml" > "$work/said" 2>&1 || fail "$mistake passed"
}

# render VALUES [--notes]
render() { python3 "$here/render.py" "$@"; }
