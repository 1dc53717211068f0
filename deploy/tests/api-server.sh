#!/usr/bin/env bash
# Opt-in: Helm puts every scenario of the chart into a real API server with its controllers, in namespaces that enforce restricted
# Pod Security: install, helm test's pod, two upgrades, rollback, uninstall. There is no kubelet, so pods are admitted and do not run.
# It is done with the oldest Kubernetes that the chart takes, a current one, and one between; KUBERNETES names one version instead.
# Needs Go 1.26, Debian's etcd-server, openssl, curl, Python, and the history of the repository. Takes about twenty minutes and 3 GB the
# first time (helm, the API servers and the controllers are compiled), then six.
# MESH_TOOLS names the folder that keeps the tools; without it they go below target/.
# shellcheck source-path=SCRIPTDIR source=tools.sh
. "$(dirname "$0")/tools.sh"
if test -z "${KUBERNETES-}"; then
  rm -rf "$work"
  for KUBERNETES in 1.30.14 1.34.2 1.37.2; do
    say "Kubernetes $KUBERNETES"
    export KUBERNETES
    "$0"
  done
  exit
fi
# shellcheck source-path=SCRIPTDIR source=kubernetes-server.sh
. "$(dirname "$0")/kubernetes-server.sh"

"${curl[@]}" -o /dev/null --fail-with-body "$server/apis/node.k8s.io/v1/runtimeclasses" \
  -d '{"metadata": {"name": "gvisor"}, "handler": "runsc"}'

# pods RELEASE: how many pods there are, how many are wanted, and what keeps others from being made
pods() {
  "${curl[@]}" "$server/apis/apps/v1/namespaces/security/deployments?labelSelector=app.kubernetes.io/instance=$1" > "$work/deployments"
  "${curl[@]}" "$server/api/v1/namespaces/security/pods?labelSelector=app.kubernetes.io/instance=$1,app.kubernetes.io/component=authorization" > "$work/pods"
  python3 - "$work" <<'PYTHON'
import json, pathlib, sys
work = pathlib.Path(sys.argv[1])
deployment, = json.loads((work / "deployments").read_text())["items"]
conditions = deployment["status"].get("conditions", [])
failures = [condition["message"] for condition in conditions if condition["type"] == "ReplicaFailure"]
print(len(json.loads((work / "pods").read_text())["items"]), deployment["spec"]["replicas"], *failures)
PYTHON
}

until_there() {
  local is
  for _ in $(seq 150); do
    is=$(pods "$1")
    test "${is% *}" = "${is#* }" && { echo "$1: ${is% *} pods are admitted"; return; }
    sleep 0.2
  done
  fail "$1: pods, wanted: $is"
}

say 'configurations of other proxies'
mkdir -p "$work/proxies/templates"
printf 'apiVersion: v2\nname: proxies\nversion: 0.1.0\n' > "$work/proxies/Chart.yaml"
for file in contour/httpproxy ingress-nginx/ingress; do
  cp "$repository/deploy/$file.yaml" "$work/proxies/templates/${file%%/*}.yaml"
done
right install proxies "$work/proxies"
sed -i 's/failOpen: false/failOpen: nein/' "$work/proxies/templates/contour.yaml"
! helm upgrade proxies "$work/proxies" || fail 'a wrong type is accepted'
right uninstall proxies

chart=$repository/deploy/helm/passage-authz
seen=0
for values in "$chart"/ci/*-values.yaml; do
  name=$(basename "$values" -values.yaml)
  # No kubelet runs the Job of configCheck, so hooks are left out here.
  right install "$name" "$chart" -f "$values" --no-hooks
  ! grep -i warn "$work/said" || fail "$name: a warning"
  until_there "$name"
  # It waits for a pod that no kubelet runs: that the pod is admitted is what can be seen here.
  ! helm test "$name" --timeout 2s || fail "$name: no kubelet runs this pod"
  grep -q 'Pod in progress' "$work/said" || { cat "$work/said" >&2; fail "$name: the pod of helm test"; }
  right upgrade "$name" "$chart" -f "$values" --no-hooks --set config.mode=shadow
  right upgrade "$name" "$chart" -f "$values" --no-hooks --set image.tag=0.1.1,revisionHistoryLimit=3
  right rollback "$name" 1 --no-hooks
  right uninstall "$name" --no-hooks
  seen=$((seen + 1))
done
test "$seen" -ge 8 || fail "only $seen scenarios"

say 'an autoscaler is switched on, with a number of pods that is kept'
# replicas RELEASE: what its Deployment says
replicas() {
  "${curl[@]}" "$server/apis/apps/v1/namespaces/security/deployments/$1-passage-authz" | python3 -c 'import json, sys; print(json.load(sys.stdin)["spec"]["replicas"])'
}
# until_replicas RELEASE NUMBER
until_replicas() {
  for _ in $(seq 300); do test "$(replicas "$1")" = "$2" && return; sleep 0.2; done
  fail "$1: $(replicas "$1") replicas instead of $2"
}
kept() { test "$(replicas scaled)" = "$1" || fail "$(replicas scaled) replicas instead of $1: $2"; }
minimal=("$chart" -f "$chart/ci/minimal-values.yaml" --no-hooks)
autoscaled=("${minimal[@]}" --set autoscaling.enabled=true --set autoscaling.maxReplicas=12)
right install scaled "${minimal[@]}" --set replicaCount=6
right upgrade scaled "${autoscaled[@]}" --set autoscaling.minReplicas=4
kept 6 'the upgrade that switches the HPA on'
right upgrade scaled "${autoscaled[@]}" --set autoscaling.minReplicas=4,image.tag=0.1.1
kept 6 'an upgrade before the HPA has changed anything'
right upgrade scaled "${autoscaled[@]}" --set autoscaling.minReplicas=8
until_replicas scaled 8
right upgrade scaled "${autoscaled[@]}" --set autoscaling.minReplicas=8,image.tag=0.1.1
kept 8 'an upgrade after it'
right rollback scaled 5 --no-hooks
kept 8 'a rollback'
! helm upgrade scaled "${minimal[@]}" --set replicaCount=3 || fail 'the HPA owns the number'
right upgrade scaled "${minimal[@]}" --set replicaCount=3 --force-conflicts
kept 3 'the way back'
right upgrade scaled "${minimal[@]}" --set replicaCount=null
kept 3 'another autoscaler'
right uninstall scaled --no-hooks
echo '6 pods stay 6 with an HPA and with another autoscaler, 8 stay 8 at a rollback'

# No chart was released yet: the first one that was tried in a real cluster stands for it.
say 'from the first chart, with the values of its release'
first=f4f24085ae
mkdir "$work/first"
git -C "$repository" archive "$first" deploy/helm/passage-authz | tar -x -C "$work/first"
old=$work/first/deploy/helm/passage-authz
seen_first=0
for values in "$old"/ci/*-values.yaml; do
  name=first-$(basename "$values" -values.yaml)
  right install "$name" "$old" -f "$values" --no-hooks
  right upgrade "$name" "$chart" --reuse-values --no-hooks
  right rollback "$name" 1 --no-hooks
  right uninstall "$name" --no-hooks
  seen_first=$((seen_first + 1))
done
test "$seen_first" -ge 5 || fail "only $seen_first scenarios of the first chart"
echo "$seen_first scenarios of the first chart are upgraded and rolled back"

say 'the Job that checks the configuration'
! helm install checked "$chart" -f "$chart/ci/minimal-values.yaml" --set configCheck.enabled=true --timeout 10s || fail 'no kubelet runs this pod'
"${curl[@]}" "$server/api/v1/namespaces/security/pods?labelSelector=batch.kubernetes.io/job-name=checked-passage-authz-check" > "$work/job"
python3 -c 'import json, sys; assert len(json.load(sys.stdin)["items"]) == 1' < "$work/job" || fail 'the pod of the Job is not admitted'
echo 'its pod is admitted, before anything else of the release is there'
right uninstall checked --no-hooks

say 'what is wrong is seen'
right install careless "$chart" -f "$chart/ci/minimal-values.yaml" --set securityContext.allowPrivilegeEscalation=true
for _ in $(seq 150); do pods careless | grep -q 'violates PodSecurity' && break; sleep 0.2; done
pods careless | grep -o 'violates PodSecurity "restricted[^"]*"' || fail 'a pod that is not restricted is admitted'
! helm upgrade careless "$chart" -f "$chart/ci/minimal-values.yaml" --set service.headless=true || fail 'a cluster IP changes'
grep -m 1 -o 'may not change once set' "$work/said" || fail 'refused for something else'
printf '\n%s scenarios installed, upgraded, rolled back; 2 mistakes seen\n' "$seen"
