#!/usr/bin/env bash
# Opt-in: what the chart renders, for every scenario, against the schemas of Kubernetes 1.30 (the oldest that the chart takes) and
# of the CustomResourceDefinitions of Istio, Envoy Gateway, the Gateway API and the Prometheus Operator.
# Needs Go 1.26 and Python's pip. Takes about three minutes the first time (kubectl-validate is compiled), then seconds.
# MESH_TOOLS names the folder that keeps the tools; without it they go below target/.
# shellcheck source-path=SCRIPTDIR source=tools.sh
. "$(dirname "$0")/tools.sh"
trap 'rm -rf "$work"' EXIT
go_tool kubectl-validate sigs.k8s.io/kubectl-validate@v0.0.4

valid() { "$tools/bin/kubectl-validate" --version 1.30 --local-crds "$work/crds" "$1"; }

say 'definitions'
definitions "$work/crds"

seen=0
for values in "$repository"/deploy/helm/passage-authz/ci/*-values.yaml; do
  name=$(basename "$values" -values.yaml)
  render "$values" > "$work/$name.yaml"
  valid "$work/$name.yaml" > "$work/said" 2>&1 || { cat "$work/said"; fail "$name"; }
  echo "$name: valid, $(grep -c '^kind:' "$work/$name.yaml") objects"
  seen=$((seen + 1))
done
test "$seen" -ge 8 || fail "only $seen scenarios"

say 'what is wrong is seen'
mistakes=(
  'full s/minReadySeconds:/minReadySecs:/' 'full s/containerPort: 50051/containerPort: grpc/'
  'hpa s/minAvailable:/minAvailble:/' 'full s/averageUtilization:/averageUse:/' 'full s/podSelector:/podSelektor:/'
  'full s/endpoints:/endpoint:/' 'full s/alert:/allert:/' 'istio s/action: CUSTOM/action: CUSTOMM/'
  'envoy-gateway s/failOpen: false/failOpen: nein/' 'envoy-gateway s/    kind: SecurityPolicy/    sort: SecurityPolicy/'
)
for mistake in "${mistakes[@]}"; do
  refused "$work/${mistake%% *}.yaml" "${mistake#* }" valid
  printf '%s: ' "$mistake"
  grep -m 1 -o 'spec.*' "$work/said" || fail "$mistake is refused for something else"
done
printf '\n%s scenarios valid, %s mistakes seen\n' "$seen" "${#mistakes[@]}"
