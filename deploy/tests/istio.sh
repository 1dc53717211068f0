#!/usr/bin/env bash
# Opt-in: what istioctl says to the chart's Istio resources, for every scenario that has some.
# Needs Go 1.26 and Python's pip. Takes about five minutes and 105 MB the first time (istioctl is compiled), then seconds.
# MESH_TOOLS names the folder that keeps the tools; without it they go below target/.
# shellcheck source-path=SCRIPTDIR source=tools.sh
. "$(dirname "$0")/tools.sh"
trap 'rm -rf "$work"' EXIT
# Istio's tags have no v, so its versions are named by their commits: this is of 2026-08-27.
go_tool istioctl istio.io/istio/istioctl/cmd/istioctl@v0.0.0-20260827124520-eed52ebb66ad
istioctl=$tools/bin/istioctl

cat > "$work/around.yaml" <<'YAML'
apiVersion: v1
kind: Namespace
metadata: {name: security, labels: {istio-injection: enabled}}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio-injection: enabled}}
YAML

seen=0
for values in "$repository"/deploy/helm/passage-authz/ci/*-values.yaml; do
  name=$(basename "$values" -values.yaml)
  render "$values" > "$work/$name.yaml"
  grep -q 'istio.io/v1' "$work/$name.yaml" || continue
  say "$name"
  render "$values" --notes | sed -n '/# extensionProviders: begin/,/# extensionProviders: end/p' > "$work/mesh.yaml"
  grep -q 'failOpen: false' "$work/mesh.yaml" || fail "$name prints no provider"
  "$istioctl" validate -f "$work/$name.yaml"
  "$istioctl" analyze --use-kube=false --all-namespaces --failure-threshold Info \
    --meshConfigFile "$work/mesh.yaml" "$work/$name.yaml" "$work/around.yaml"
  seen=$((seen + 1))
done
test "$seen" -ge 3 || fail "only $seen scenarios have Istio resources"

say 'what is wrong is seen'
for mistake in 's/action: CUSTOM/action: CUSTOMM/' 's/  - to:/  - too:/' 's/ports:$/port:/'; do
  refused "$work/istio.yaml" "$mistake" "$istioctl" validate -f
  sed -n '2p' "$work/said"
done
printf '\n%s scenarios passed, %s mistakes seen\n' "$seen" 3
