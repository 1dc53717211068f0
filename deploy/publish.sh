#!/usr/bin/env bash
# Publishes the chart and what Artifact Hub shows of it to an OCI registry, then pulls the chart from there, compares it, and renders it.
#   deploy/publish.sh                        a dry run: the registry is a small one on loopback, and is gone afterwards
#   deploy/publish.sh oci://HOST/FOLDER      the real one; `helm registry login HOST` first
# A version that is there already is not overwritten.
# Needs Go 1.26; helm, oras and the small registry are compiled the first time, which takes some minutes.
# MESH_TOOLS names the folder that keeps the tools; without it they go below target/.
# shellcheck source-path=SCRIPTDIR source=tests/tools.sh
. "$(dirname "$0")/tests/tools.sh"
go_tool helm helm.sh/helm/v4/cmd/helm@v4.3.1
go_tool oras oras.land/oras/cmd/oras@v1.3.0
chart=$repository/deploy/helm/passage-authz
helm() { "$tools/bin/helm" "$@"; }
# With the login of `helm registry login`.
oras() { local verb=$1 what=$2; shift 2; "$tools/bin/oras" "$verb" "$what" --registry-config "$registry_config" "$@"; }
# Neither the caches nor the repositories of the caller's Helm are touched; the login is the caller's.
registry_config=$("$tools/bin/helm" env HELM_REGISTRY_CONFIG)
export HELM_REGISTRY_CONFIG=$registry_config HELM_CACHE_HOME=$work/cache HELM_DATA_HOME=$work/data HELM_PLUGINS=$work/plugins
plain=() pid=
trap 'test -z "$pid" || kill "$pid"; rm -rf "$work"' EXIT

case $#:${1-} in
  0:)
    go_tool registry github.com/google/go-containerregistry/cmd/registry@v0.20.6
    port=$(port)
    "$tools/bin/registry" -port "$port" > "$work/registry.log" 2>&1 & pid=$!
    for _ in $(seq 100); do curl -s -o "$work/said" "http://127.0.0.1:$port/v2/" && break; sleep 0.1; done
    target=oci://127.0.0.1:$port/charts plain=(--plain-http)
    ;;
  1:oci://*) target=$1 ;;
  *) echo "usage: $0 [oci://HOST/FOLDER]" >&2; exit 2 ;;
esac

# absent TAG: whether the registry says that there is no such tag. Any other failure is none of its answers.
absent() {
  ! oras manifest fetch "${plain[@]}" "$place:$1" > "$work/said" 2>&1 || return 1
  grep -Eqi 'not found|name.unknown' "$work/said" || { cat "$work/said" >&2; fail "$place:$1 cannot be asked for"; }
}

value() { sed -n "s/^$1: *//p" "$chart/Chart.yaml"; }
name=$(value name) version=$(value version)
place=${target#oci://}/$name

say "$name $version is packaged"
helm lint --strict "$chart" --set passage.appId=app1 > "$work/said" || { cat "$work/said" >&2; fail 'helm lint --strict'; }
helm package "$chart" --destination "$work" > "$work/said"
archive=$work/$name-$version.tgz
tar -tzf "$archive" | sort > "$work/files"
! grep -v "^$name/" "$work/files" || fail 'a file outside of the chart'
grep -qx "$name/values.schema.json" "$work/files" || fail 'the schema is missing'
! grep -E '/(ci|\.git)/' "$work/files" || fail 'what .helmignore leaves out'

say "to $target"
absent "$version" || fail "$place:$version is there already"
helm push "$archive" "$target" "${plain[@]}" > "$work/said" 2>&1 || { cat "$work/said" >&2; fail 'helm push'; }
digest=$(sed -n 's/^Digest: //p' "$work/said")
test -n "$digest" || fail 'no digest'
printf '' > "$work/empty"
(cd "$chart/.." && oras push "$place:artifacthub.io" "${plain[@]}" --disable-path-validation \
  --config "$work/empty:application/vnd.cncf.artifacthub.config.v1+yaml" \
  artifacthub-repo.yml:application/vnd.cncf.artifacthub.repository-metadata.layer.v1.yaml) > "$work/said" 2>&1 \
  || { cat "$work/said" >&2; fail 'oras push'; }
echo "$place@$digest"

say 'from there'
mkdir "$work/pulled"
helm pull "$target/$name" --version "$version" "${plain[@]}" --destination "$work/pulled" > "$work/said" 2>&1 \
  || { cat "$work/said" >&2; fail 'helm pull'; }
cmp "$archive" "$work/pulled/$name-$version.tgz" || fail 'another archive came back'
helm template authz "$target/$name" --version "$version" "${plain[@]}" -f "$chart/ci/minimal-values.yaml" > "$work/rendered" 2> "$work/said" \
  || { cat "$work/said" >&2; fail 'helm template'; }
helm template authz "$chart" -f "$chart/ci/minimal-values.yaml" | cmp - "$work/rendered" || fail 'it renders something else'
(cd "$work/pulled" && oras pull "$place:artifacthub.io" "${plain[@]}") > "$work/said" 2>&1 || { cat "$work/said" >&2; fail 'oras pull'; }
cmp "$chart/../artifacthub-repo.yml" "$work/pulled/artifacthub-repo.yml" || fail 'another artifacthub-repo.yml came back'
echo "the same archive, $(grep -c '^kind:' "$work/rendered") objects, artifacthub-repo.yml"

say 'a version is published once'
absent 0.0.0 || fail '0.0.0 was never published'
! absent "$version" || fail "$version is not seen"
echo "$version is there, and this script would refuse to publish it again"
