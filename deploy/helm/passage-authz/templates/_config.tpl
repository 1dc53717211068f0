{{/* The service's configuration: config, and what other values stand for. */}}
{{- define "passage-authz.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- with .Values.passage -}}
{{- if .appId -}}
{{- $app := dict "app_id" .appId -}}
{{- with .baseUrl -}}{{- $_ := set $app "base_url" . -}}{{- end -}}
{{- $passage := dict "name" "passage" "passage" $app -}}
{{- $_ := set $config "issuers" (prepend ($config.issuers | default list) $passage) -}}
{{- end -}}
{{- end -}}
{{- if .Values.tls.existingSecret -}}
{{- $tls := dict "cert" "/etc/passage-authz/tls/tls.crt" "key" "/etc/passage-authz/tls/tls.key" -}}
{{- if .Values.tls.clientCertificates -}}{{- $_ := set $tls "client_ca" "/etc/passage-authz/tls/ca.crt" -}}{{- end -}}
{{- $_ := set $config "server" (set ($config.server | default dict) "tls" $tls) -}}
{{- end -}}
{{- if .Values.keyStore.enabled -}}
{{- $path := "/var/lib/passage-authz" -}}
{{- $_ := set $config "key_store" (.Values.keyStore.readOnly | ternary (dict "path" $path "read_only" true) $path) -}}
{{- end -}}
{{- if .Values.revocation.enabled -}}
{{- $port := .Values.revocation.port -}}
{{- $ours := dict "listen" (printf "[::]:%v" $port) "peers" (printf "%s:%v" (include "passage-authz.replicasHost" .) $port) -}}
{{- $_ := set $config "revocation" (merge $ours ($config.revocation | default dict)) -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}
