# Sourced after tools.sh by the opt-in checks that need an API server: starts the Kubernetes of the version KUBERNETES, without a kubelet,
# with its controllers; `here_address` is its own address where there is no default route. It needs Debian's etcd-server, openssl and curl.
# shellcheck shell=bash disable=SC2153,SC2154
kubernetes=$KUBERNETES
minor=${kubernetes#1.} minor=${minor%%.*}
programs=$tools/bin/kubernetes-$kubernetes
mkdir -p "$programs"
go_tool helm helm.sh/helm/v4/cmd/helm@v4.3.1

# Kubernetes replaces its libraries by folders of its own, so it cannot be installed by name.
if ! test -x "$programs/kube-apiserver" || ! test -x "$programs/kube-controller-manager"; then
  say 'the API server and its controllers are compiled'
  root=$(module_folder "k8s.io/kubernetes@v$kubernetes")
  mkdir "$work/build"
  {
    printf 'module build\n\ngo 1.24.0\n\nrequire k8s.io/kubernetes v%s\n\nreplace (\n' "$kubernetes"
    sed -n "s/^[[:space:]]*\\(k8s\\.io[^ ]*\\) => .*/\\t\\1 => \\1 v0.${kubernetes#1.}/p" "$root/go.mod"
    printf ')\n'
  } > "$work/build/go.mod"
  printf '//go:build tools\n\npackage build\n\nimport (\n\t_ "k8s.io/kubernetes/cmd/kube-apiserver"\n\t_ "k8s.io/kubernetes/cmd/kube-controller-manager"\n)\n' \
    > "$work/build/tools.go"
  version=k8s.io/component-base/version
  (cd "$work/build" && go mod tidy 2> /dev/null && go build -o "$programs/" \
    -ldflags "-X $version.gitVersion=v$kubernetes -X $version.gitMajor=1 -X $version.gitMinor=$minor" \
    k8s.io/kubernetes/cmd/kube-apiserver k8s.io/kubernetes/cmd/kube-controller-manager)
fi

pids=()
# The last one first: an API server whose etcd is gone takes minutes to end.
end() {
  local at
  for ((at = ${#pids[@]} - 1; at >= 0; at--)); do
    kill "${pids[at]}" 2> /dev/null || true
    wait "${pids[at]}" 2> /dev/null || true
  done
  rm -rf "$work"
}
trap end EXIT
clients=$(port) peers=$(port) secure=$(port) controllers=$(port)
server=https://127.0.0.1:$secure
token=$(openssl rand -hex 16)
curl=(curl -sk --max-time 10 -H "authorization: Bearer $token" -H 'content-type: application/json')

say 'the API server'
openssl genrsa -out "$work/accounts.key" 2048 2> /dev/null
echo "$token,admin,1,system:masters" > "$work/tokens.csv"
etcd --data-dir "$work/etcd" --listen-client-urls "http://127.0.0.1:$clients" --advertise-client-urls "http://127.0.0.1:$clients" \
  --listen-peer-urls "http://127.0.0.1:$peers" --initial-advertise-peer-urls "http://127.0.0.1:$peers" \
  --initial-cluster "default=http://127.0.0.1:$peers" > "$work/etcd.log" 2>&1 & pids+=($!)
"$programs/kube-apiserver" --etcd-servers "http://127.0.0.1:$clients" --bind-address 127.0.0.1 --secure-port "$secure" \
  --cert-dir "$work/certificates" --service-account-issuer "$server" --service-account-key-file "$work/accounts.key" \
  --service-account-signing-key-file "$work/accounts.key" --token-auth-file "$work/tokens.csv" --authorization-mode RBAC \
  --service-cluster-ip-range 10.0.0.0/24,fd00:1::/112 ${here_address:+--advertise-address "$here_address"} > "$work/server.log" 2>&1 & pids+=($!)
export KUBECONFIG=$work/kubeconfig
cat > "$KUBECONFIG" <<YAML
apiVersion: v1
kind: Config
clusters: [{name: here, cluster: {server: "$server", insecure-skip-tls-verify: true}}]
users: [{name: admin, user: {token: "$token"}}]
contexts: [{name: here, context: {cluster: here, user: admin}}]
current-context: here
YAML
is_ready() { test "$("${curl[@]}" "$server/readyz")" = ok; }
for _ in $(seq 300); do is_ready && break; sleep 0.2; done
is_ready || { tail -n 5 "$work/server.log" >&2; fail 'the API server is not ready'; }
"$programs/kube-controller-manager" --kubeconfig "$KUBECONFIG" --leader-elect=false --bind-address 127.0.0.1 --secure-port "$controllers" \
  --service-account-private-key-file "$work/accounts.key" > "$work/controllers.log" 2>&1 & pids+=($!)

# Namespaces that enforce restricted Pod Security.
for name in security shop monitoring; do
  "${curl[@]}" -o /dev/null --fail-with-body "$server/api/v1/namespaces" \
    -d "{\"metadata\": {\"name\": \"$name\", \"labels\": {\"pod-security.kubernetes.io/enforce\": \"restricted\"}}}"
done

helm() { "$tools/bin/helm" --namespace security "$@" > "$work/said" 2>&1; }
right() { helm "$@" || { tail -n 5 "$work/said" >&2; fail "helm $*"; }; }

say 'definitions'
mkdir "$work/definitions"
printf 'apiVersion: v2\nname: definitions\nversion: 0.1.0\n' > "$work/definitions/Chart.yaml"
definitions "$work/definitions/crds"
right install definitions "$work/definitions"
