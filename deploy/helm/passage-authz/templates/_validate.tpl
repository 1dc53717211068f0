{{/* What cannot work is refused here, with the remedy; what the schema can see stands in values.schema.json. */}}
{{- define "passage-authz.validate" -}}
{{- include "passage-authz.validate.config" . -}}
{{- include "passage-authz.validate.pods" . -}}
{{- with .Values.networkPolicy -}}
{{- if and .enabled (not .callers) -}}
{{- fail "networkPolicy.callers is empty, and a NetworkPolicy reads an empty list as everybody: name the namespaces or pods of your proxies, such as [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: istio-ingress}}}]" -}}
{{- end -}}
{{- end -}}
{{- with .Values.metrics -}}
{{- if and (include "passage-authz.rendered" (list $ .serviceMonitor.enabled "monitoring.coreos.com/v1/ServiceMonitor")) (include "passage-authz.rendered" (list $ .podMonitor.enabled "monitoring.coreos.com/v1/PodMonitor")) -}}
{{- fail "metrics.serviceMonitor and metrics.podMonitor are both enabled, and every series would be there twice: enable one of the two" -}}
{{- end -}}
{{- end -}}
{{- if .Values.istio.enabled -}}{{- include "passage-authz.validate.istio" . -}}{{- end -}}
{{- if and .Values.envoyGateway.enabled (not (or .Values.envoyGateway.targetRefs .Values.envoyGateway.targetSelectors)) -}}
{{- fail "envoyGateway.targetRefs and envoyGateway.targetSelectors are empty: name what is protected, such as [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: orders}]" -}}
{{- end -}}
{{- end -}}

{{- define "passage-authz.validate.config" -}}
{{- $config := .Values.config -}}
{{- $server := $config.server | default dict -}}
{{- $admin := $config.admin | default dict -}}
{{- $existing := list .Values.existingConfigMap .Values.existingSecret | compact -}}
{{- if gt (len $existing) 1 -}}
{{- fail "existingConfigMap and existingSecret both name the configuration: set one of the two" -}}
{{- end -}}
{{- if and $existing (or .Values.passage.appId $config.issuers $config.rules) -}}
{{- fail (printf "the configuration is in %s, and passage.appId, config.issuers and config.rules would have no effect: leave them out" (first $existing)) -}}
{{- end -}}
{{- if not (or .Values.passage.appId $config.issuers $existing) -}}
{{- fail "no issuer is configured, so no token could be accepted: set passage.appId, or config.issuers" -}}
{{- end -}}
{{- if and .Values.revocation.enabled $existing -}}
{{- fail (printf "revocation.enabled sets config.revocation, and the configuration is in %s: write listen and peers there, and the ports and the Service yourself" (first $existing)) -}}
{{- end -}}
{{- range $key := list "listen" "peers" -}}
{{- if and $.Values.revocation.enabled (get ($config.revocation | default dict) $key) -}}
{{- fail (printf "revocation.enabled sets config.revocation.%s: leave it out" $key) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.passage.baseUrl (not .Values.passage.appId) -}}
{{- fail "passage.baseUrl is set without passage.appId" -}}
{{- end -}}
{{- range $config.issuers -}}
{{- if and $.Values.passage.appId (eq .name "passage") -}}
{{- fail "passage.appId makes an issuer named passage, and config.issuers has one already: set one of the two" -}}
{{- end -}}
{{- end -}}
{{- if hasPrefix "unix:" ($server.listen | default "") -}}
{{- fail "config.server.listen is a Unix socket, which no other pod can reach: set host:port, such as [::]:50051" -}}
{{- end -}}
{{- range $name, $listen := dict "server" $server.listen "admin" $admin.listen "http" (($config.http | default dict).listen) -}}
{{- if regexMatch "^(127\\.|localhost:|\\[::1\\])" ($listen | default "") -}}
{{- fail (printf "config.%s.listen is a loopback address, which neither probes nor other pods can reach: set [::]:PORT" $name) -}}
{{- end -}}
{{- end -}}
{{- $ports := list (.Values.service.port | toString) (include "passage-authz.adminPort" .) -}}
{{- with include "passage-authz.httpPort" . -}}{{- $ports = append $ports . -}}{{- end -}}
{{- if .Values.revocation.enabled -}}{{- $ports = append $ports (.Values.revocation.port | toString) -}}{{- end -}}
{{- if ne (len $ports) (len (uniq $ports)) -}}
{{- fail (printf "service.port, revocation.port and the ports of config.admin.listen and config.http.listen are %s: each must be another" (join ", " $ports)) -}}
{{- end -}}
{{- if not (regexMatch "^[a-z]" (include "passage-authz.fullname" .)) -}}
{{- fail (printf "the name %q does not begin with a letter, as a Service's must: set fullnameOverride" (include "passage-authz.fullname" .)) -}}
{{- end -}}
{{- if and .Values.tls.existingSecret $server.tls -}}
{{- fail "tls.existingSecret and config.server.tls both name a certificate: set one of the two" -}}
{{- end -}}
{{- if and .Values.tls.clientCertificates (not .Values.tls.existingSecret) -}}
{{- fail "tls.clientCertificates needs tls.existingSecret, whose ca.crt signs the clients" -}}
{{- end -}}
{{- if and .Values.keyStore.enabled $config.key_store -}}
{{- fail "keyStore.enabled mounts a volume and sets config.key_store: leave config.key_store out" -}}
{{- end -}}
{{- end -}}

{{- define "passage-authz.validate.pods" -}}
{{- if and (eq .Values.probes.type "grpc") (include "passage-authz.hasTls" .) -}}
{{- fail "probes.type is grpc, but the gRPC port has TLS and Kubernetes' gRPC probes speak plaintext only: leave probes.type out, or set http, which asks the admin port" -}}
{{- end -}}
{{- with .Values.podDisruptionBudget -}}
{{- $replicas := include "passage-authz.replicas" $ | int -}}
{{- if and (eq (toString .enabled) "true") (lt $replicas 2) -}}
{{- fail "podDisruptionBudget.enabled is true with a single replica: no node could be drained. Set replicaCount or autoscaling.minReplicas to 2 or more, or podDisruptionBudget.enabled to auto" -}}
{{- end -}}
{{- if and (include "passage-authz.hasBudget" $) (or (kindIs "float64" .minAvailable) (kindIs "int64" .minAvailable)) (ge (int .minAvailable) $replicas) -}}
{{- fail (printf "podDisruptionBudget.minAvailable is %d of %d replicas: no node could be drained" (int .minAvailable) $replicas) -}}
{{- end -}}
{{- if and (include "passage-authz.hasBudget" $) (eq (toString .minAvailable) "100%") -}}
{{- fail "podDisruptionBudget.minAvailable is 100%: no node could be drained" -}}
{{- end -}}
{{- if and (include "passage-authz.hasBudget" $) (kindIs "invalid" .minAvailable) (has (toString .maxUnavailable) (list "0" "0%")) -}}
{{- fail "podDisruptionBudget.maxUnavailable is 0: no node could be drained" -}}
{{- end -}}
{{- end -}}
{{- with .Values.autoscaling -}}
{{- if .enabled -}}
{{- if gt (int .minReplicas) (int .maxReplicas) -}}
{{- fail (printf "autoscaling.minReplicas is %d, more than autoscaling.maxReplicas, %d" (int .minReplicas) (int .maxReplicas)) -}}
{{- end -}}
{{- if not (or .targetCPUUtilizationPercentage .metrics) -}}
{{- fail "autoscaling has nothing to go by: set autoscaling.targetCPUUtilizationPercentage or autoscaling.metrics" -}}
{{- end -}}
{{- if and .targetCPUUtilizationPercentage (not (dig "requests" "cpu" "" $.Values.resources)) -}}
{{- fail "autoscaling.targetCPUUtilizationPercentage is a share of resources.requests.cpu, which is not set" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with .Values.terminationGracePeriodSeconds -}}
{{- $drain := include "passage-authz.drainSeconds" $ | int -}}
{{- if le (int .) $drain -}}
{{- fail (printf "terminationGracePeriodSeconds is %d, but preStopSleepSeconds and config.server.drain_timeout take %d: checks would be cut off. Set more than that, or leave it out" (int .) $drain) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "passage-authz.validate.istio" -}}
{{- $istio := .Values.istio -}}
{{- if or (gt (len $istio.provider) 63) (not (regexMatch "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$" $istio.provider)) -}}
{{- fail (printf "istio.provider is %q, which is no DNS label (RFC 1123): lower-case letters, digits and dashes, at most 63. Istio would deny every matched request" $istio.provider) -}}
{{- end -}}
{{- if and $istio.selector $istio.targetRefs -}}
{{- fail "istio.selector and istio.targetRefs exclude each other: Istio takes one of the two" -}}
{{- end -}}
{{- if and $istio.selector (not $istio.selector.matchLabels) -}}
{{- fail "istio.selector has no matchLabels, so it would select everything: name labels, or leave istio.selector out for the whole namespace" -}}
{{- end -}}
{{- $namespace := $istio.namespace | default .Release.Namespace -}}
{{- $own := mergeOverwrite (dict) .Values.podLabels (include "passage-authz.labels" . | fromYaml) -}}
{{- $covered := or (eq $namespace .Release.Namespace) (eq $namespace $istio.rootNamespace) -}}
{{- if and $covered (not $istio.targetRefs) -}}
{{- $selected := true -}}
{{- range $label, $value := ($istio.selector.matchLabels | default dict) -}}
{{- if ne (toString (get $own $label)) (toString $value) -}}{{- $selected = false -}}{{- end -}}
{{- end -}}
{{- if $selected -}}
{{- fail (printf "the AuthorizationPolicy in namespace %s would select passage-authz itself, and every Check would call Check: set istio.selector to labels of the protected workloads, istio.targetRefs to their waypoint or Gateway, or istio.namespace to their namespace" $namespace) -}}
{{- end -}}
{{- end -}}
{{- range $istio.targetRefs -}}
{{- if and (eq .kind "Service") (eq .name (include "passage-authz.fullname" $)) (eq $namespace $.Release.Namespace) -}}
{{- fail "istio.targetRefs names passage-authz's own Service, and every Check would call Check: name the protected ones" -}}
{{- end -}}
{{- end -}}
{{- if not $istio.rules -}}
{{- fail "istio.rules is empty, so nothing would be checked: leave it out, or set [{}], for every request" -}}
{{- end -}}
{{- $rules := toJson $istio.rules -}}
{{- range list "principals" "notPrincipals" "requestPrincipals" "notRequestPrincipals" "namespaces" "notNamespaces" "serviceAccounts" "notServiceAccounts" "request.auth" "source.principal" "source.namespace" -}}
{{- if or (contains (printf "%q:" .) $rules) (contains (printf "\"key\":\"%s" .) $rules) -}}
{{- fail (printf "istio.rules uses %s, which Istio does not take in a policy with action CUSTOM: match hosts, paths, methods, ports or IP blocks" .) -}}
{{- end -}}
{{- end -}}
{{- if and $istio.callers.enabled (not (or $istio.callers.principals $istio.callers.namespaces)) -}}
{{- fail "istio.callers names nobody: set istio.callers.principals or istio.callers.namespaces, or switch istio.callers.enabled off" -}}
{{- end -}}
{{- end -}}
