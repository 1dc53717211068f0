#!/usr/bin/env bash
# Opt-in: a real OpenID provider (npm's oidc-provider) logs users out, and their tokens are denied. Needs Node 20, npm, Python 3 and Rust.
# shellcheck source-path=SCRIPTDIR source=tools.sh
. "$(dirname "$0")/tools.sh"
pids=()
trap 'kill "${pids[@]}" 2> /dev/null || true; rm -rf "$work"' EXIT
# Until a command succeeds, for half a minute.
until_true() {
  for _ in $(seq 300); do ! "$@" 2> /dev/null || return 0; sleep 0.1; done
  fail "never true: $*"
}
modules="$tools/oidc-provider"
mkdir -p "$modules"
cp "$here/oidc-provider/"* "$modules"
npm ci --prefix "$modules" --no-audit --no-fund > /dev/null
cargo build --locked --quiet --manifest-path "$repository/Cargo.toml" --bin passage-authz

provider_port=$(port) events_port=$(port) http_port=$(port) provider="http://127.0.0.1:$provider_port"
PORT=$provider_port LOGOUT_URI="http://127.0.0.1:$events_port/backchannel-logout" node "$modules/provider.mjs" > "$work/provider.log" 2>&1 & pids+=($!)
until_true grep -q '"ready"' "$work/provider.log"
cat > "$work/authz.yaml" <<YAML
server: {listen: "127.0.0.1:0"}
admin: {listen: "127.0.0.1:0"}
http: {listen: "127.0.0.1:$http_port", style: forward_auth}
issuers: [{name: login, issuer: "$provider", audiences: ["https://api.example.com"], keys: {discovery: true}}]
revocation: {listen: "127.0.0.1:$events_port", audiences: [shop], max_token_lifetime: 1h}
YAML
"${CARGO_TARGET_DIR:-$repository/target}/debug/passage-authz" serve --config "$work/authz.yaml" 2> "$work/authz.log" & pids+=($!)

# check TOKEN: the status, and the code of a denial
check() {
  curl --silent --write-out ' %{http_code}' --header "authorization: Bearer $1" --header 'x-original-method: GET' \
    --header 'x-original-url: https://shop.example.com/orders' "http://127.0.0.1:$http_port/" | sed 's/.*"code":"\([a-z_]*\)".* /\1 /; s/^ //'
}
is() { test "$2" = "$3" || { echo "$1: $2 instead of $3"; cat "$work/provider.log"; tail -5 "$work/authz.log"; exit 1; }; echo "$1: $2"; }

declare -A token
for user in alice bob; do
  mkfifo "$work/$user.in"
  python3 "$modules/user.py" "$provider" "$user" < "$work/$user.in" > "$work/$user.out" & pids+=($!)
done
exec {alice}> "$work/alice.in" {bob}> "$work/bob.in"
for user in alice bob; do
  until_true test -s "$work/$user.out"
  token[$user]=$(cat "$work/$user.out")
done
is_let_in() { test "$(check "${token[bob]}")" = 200; }
until_true is_let_in
for user in alice bob; do is "$user is logged in" "$(check "${token[$user]}")" 200; done
echo >&"$alice"
until_true grep -q backchannel "$work/provider.log"
is 'alice has logged out' "$(check "${token[alice]}")" 'token_revoked 401'
is 'bob is logged in' "$(check "${token[bob]}")" 200
is 'what the provider saw' "$(grep -o 'backchannel.[a-z]*' "$work/provider.log")" backchannel.success
echo >&"$bob"
