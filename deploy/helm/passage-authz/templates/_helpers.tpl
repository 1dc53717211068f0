{{/* Names are DNS labels: 63 characters, suffixes counted. */}}
{{- define "passage-authz.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "passage-authz.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* (list $ "suffix") */}}
{{- define "passage-authz.suffixed" -}}
{{- $suffix := printf "-%s" (index . 1) -}}
{{- $room := int (sub 63 (len $suffix)) -}}
{{- include "passage-authz.fullname" (index . 0) | trunc $room | trimSuffix "-" }}{{ $suffix -}}
{{- end -}}

{{- define "passage-authz.chart" -}}
{{- printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* What a selector may hold: it can never change. */}}
{{- define "passage-authz.selectorLabels" -}}
app.kubernetes.io/name: {{ include "passage-authz.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "passage-authz.labels" -}}
{{- $ours := dict
  "helm.sh/chart" (include "passage-authz.chart" .)
  "app.kubernetes.io/version" (.Values.image.tag | default .Chart.AppVersion | replace "+" "_" | trunc 63 | trimSuffix "-")
  "app.kubernetes.io/component" "authorization"
  "app.kubernetes.io/part-of" "passage-authz"
  "app.kubernetes.io/managed-by" .Release.Service -}}
{{- $labels := mergeOverwrite (dict) .Values.commonLabels $ours (include "passage-authz.selectorLabels" . | fromYaml) -}}
{{- toYaml $labels -}}
{{- end -}}

{{/* The pod of helm test. */}}
{{- define "passage-authz.testLabels" -}}
app.kubernetes.io/name: {{ include "passage-authz.name" . | trunc 58 | trimSuffix "-" }}-test
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: test
{{- end -}}

{{/* (list $ annotations...): metadata.annotations, those that are common to all resources first */}}
{{- define "passage-authz.annotations" -}}
{{- $all := dict -}}
{{- range rest . -}}{{- $all = mergeOverwrite $all (deepCopy (. | default dict)) -}}{{- end -}}
{{- $all = mergeOverwrite (deepCopy (first .).Values.commonAnnotations) $all -}}
{{- with $all -}}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end -}}

{{/* Name of the ConfigMap with the configuration; empty if it is in a Secret. */}}
{{- define "passage-authz.configMap" -}}
{{- if not .Values.existingSecret -}}
{{- .Values.existingConfigMap | default (include "passage-authz.fullname" .) -}}
{{- end -}}
{{- end -}}

{{- define "passage-authz.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "passage-authz.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "passage-authz.image" -}}
{{- $image := .Values.image -}}
{{- $registry := .Values.global.imageRegistry | default $image.registry -}}
{{- $repository := $image.repository -}}
{{- /* As container engines read it: the first part is a registry if it has a dot or a port, or is localhost. */ -}}
{{- if regexMatch "^([^/]*[.:][^/]*|localhost)/" $repository -}}
{{- $own := $repository | splitList "/" | first -}}
{{- $repository = trimPrefix (printf "%s/" $own) $repository -}}
{{- $registry = .Values.global.imageRegistry | default $own -}}
{{- end -}}
{{- $name := list $registry $repository | compact | join "/" -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $name $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name ($image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- define "passage-authz.pullSecrets" -}}
{{- $secrets := list -}}
{{- range concat .Values.global.imagePullSecrets .Values.image.pullSecrets -}}
{{- $secrets = append $secrets (kindIs "string" . | ternary (dict "name" .) .) -}}
{{- end -}}
{{- with $secrets | uniq -}}
imagePullSecrets:
{{ toYaml . }}
{{- end -}}
{{- end -}}

{{- define "passage-authz.host" -}}
{{- printf "%s.%s.svc.%s" (include "passage-authz.fullname" .) .Release.Namespace .Values.clusterDomain -}}
{{- end -}}

{{/* The Service by which replicas find each other. */}}
{{- define "passage-authz.replicasName" -}}
{{- printf "%s-replicas" (include "passage-authz.fullname" . | trunc 54 | trimSuffix "-") -}}
{{- end -}}

{{- define "passage-authz.replicasHost" -}}
{{- printf "%s.%s.svc.%s" (include "passage-authz.replicasName" .) .Release.Namespace .Values.clusterDomain -}}
{{- end -}}

{{/* (list $config "server" "[::]:50051"): the port of a `listen` */}}
{{- define "passage-authz.port" -}}
{{- $section := get (index . 0) (index . 1) | default dict -}}
{{- $section.listen | default (index . 2) | splitList ":" | last -}}
{{- end -}}

{{- define "passage-authz.grpcPort" -}}
{{- include "passage-authz.port" (list .Values.config "server" "[::]:50051") -}}
{{- end -}}

{{- define "passage-authz.adminPort" -}}
{{- include "passage-authz.port" (list .Values.config "admin" "[::]:9090") -}}
{{- end -}}

{{/* Empty without an HTTP port. */}}
{{- define "passage-authz.httpPort" -}}
{{- if .Values.config.http -}}
{{- include "passage-authz.port" (list .Values.config "http" "[::]:8081") -}}
{{- end -}}
{{- end -}}

{{/* Whole seconds, rounded up, of a duration as the service reads it: 250ms, 10s, 5m, 24h. */}}
{{- define "passage-authz.seconds" -}}
{{- $number := regexFind "^[0-9]+" . | int -}}
{{- if hasSuffix "ms" . -}}{{- div (add $number 999) 1000 -}}
{{- else if hasSuffix "s" . -}}{{- $number -}}
{{- else if hasSuffix "m" . -}}{{- mul $number 60 -}}
{{- else -}}{{- mul $number 3600 -}}
{{- end -}}
{{- end -}}

{{/* What a drain may take: the sleep before SIGTERM and the service's own deadline. */}}
{{- define "passage-authz.drainSeconds" -}}
{{- $server := .Values.config.server | default dict -}}
{{- add .Values.preStopSleepSeconds (include "passage-authz.seconds" ($server.drain_timeout | default "20s") | int) -}}
{{- end -}}

{{- define "passage-authz.hasTls" -}}
{{- $server := .Values.config.server | default dict -}}
{{- if or .Values.tls.existingSecret $server.tls -}}true{{- end -}}
{{- end -}}

{{/* Fewest replicas there will be. What another autoscaler does is not known: two, as its user would want. */}}
{{- define "passage-authz.replicas" -}}
{{- if .Values.autoscaling.enabled -}}{{- .Values.autoscaling.minReplicas -}}
{{- else if kindIs "invalid" .Values.replicaCount -}}2
{{- else -}}{{- .Values.replicaCount -}}{{- end -}}
{{- end -}}

{{/*
What the Deployment says. With an autoscaler it is the number of now, since a number that is taken out becomes Kubernetes' default, one pod.
It is left out once someone else owns the field: server-side apply keeps it then, and would refuse another number at a rollback.
Empty at an install, and where Helm asks no cluster (helm template, GitOps).
*/}}
{{- define "passage-authz.replicasOfDeployment" -}}
{{- if or .Values.autoscaling.enabled (kindIs "invalid" .Values.replicaCount) -}}
{{- with lookup "apps/v1" "Deployment" .Release.Namespace (include "passage-authz.fullname" .) -}}
{{- $applied := false -}}
{{- $owned := false -}}
{{- range .metadata.managedFields -}}
{{- $spec := dig "f:spec" dict (.fieldsV1 | default dict) -}}
{{- if and (eq .operation "Apply") (hasKey $spec "f:template") -}}{{- $applied = true -}}
{{- else -}}{{- $owned = or $owned (hasKey $spec "f:replicas") -}}{{- end -}}
{{- end -}}
{{- if not (and $applied $owned) -}}{{- .spec.replicas -}}{{- end -}}
{{- end -}}
{{- else -}}{{- .Values.replicaCount -}}{{- end -}}
{{- end -}}

{{/* (list $ switch api): whether a kind that not every cluster knows is rendered */}}
{{- define "passage-authz.rendered" -}}
{{- $switch := toString (index . 1) -}}
{{- if or (eq $switch "true") (and (eq $switch "auto") ((index . 0).Capabilities.APIVersions.Has (index . 2))) -}}true{{- end -}}
{{- end -}}

{{/* An endpoint of a ServiceMonitor or a PodMonitor, of its values. */}}
{{- define "passage-authz.endpoint" -}}
port: http-metrics
path: /metrics
{{- range $key := list "scheme" "interval" "scrapeTimeout" }}
{{- with get $ $key }}
{{ $key }}: {{ . }}
{{- end }}
{{- end }}
{{- with .tlsConfig }}
tlsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if .honorLabels }}
honorLabels: true
{{- end }}
{{- with .relabelings }}
relabelings:
{{- toYaml . | nindent 0 }}
{{- end }}
{{- with .metricRelabelings }}
metricRelabelings:
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end -}}

{{/* The job label of the series, as the Prometheus Operator sets it: by jobLabel, if the Service or the pod has such a label. */}}
{{- define "passage-authz.job" -}}
{{- $name := include "passage-authz.fullname" . -}}
{{- $labels := include "passage-authz.labels" . | fromYaml -}}
{{- with .Values.metrics -}}
{{- if .prometheusRule.job -}}{{- .prometheusRule.job -}}
{{- else if include "passage-authz.rendered" (list $ .podMonitor.enabled "monitoring.coreos.com/v1/PodMonitor") -}}
{{- $job := printf "%s/%s" (.podMonitor.namespace | default $.Release.Namespace) $name -}}
{{- get (mergeOverwrite (dict) $.Values.podLabels $labels) (.podMonitor.jobLabel | default "") | default $job -}}
{{- else -}}
{{- get (mergeOverwrite (dict) $.Values.service.labels $labels) (.serviceMonitor.jobLabel | default "") | default $name -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* (list $ alert): the annotation that links an alert to its section of the runbook */}}
{{- define "passage-authz.runbook" -}}
{{- with (index . 0).Values.metrics.prometheusRule.runbookUrl -}}
runbook_url: "{{ . }}#{{ index $ 1 | lower }}"
{{- end -}}
{{- end -}}

{{/* The dashboard: red begins where the alerts do, and links lead where theirs do. Without a page there are no links. */}}
{{- define "passage-authz.dashboard" -}}
{{- $text := .Files.Get "files/dashboard.json" -}}
{{- with .Values.metrics.prometheusRule -}}
{{- range $name, $value := dict
  "KEY_SET_AGE_SECONDS" (int .keySetAgeSeconds)
  "DENIED_SHARE" (.deniedShare | default 0.5)
  "CLOCK_AHEAD_SECONDS" (int .clockSkewSeconds)
  "CLOCK_BEHIND_SECONDS" (int .clockSkewSeconds | mul -1)
  "CERTIFICATE_SECONDS" (int .certificateDays | mul 86400)
  "REVOCATION_AGE_SECONDS" (int .revocationAgeSeconds) -}}
{{- $text = $text | replace ($name | quote) (toString $value) -}}
{{- end -}}
{{- if .runbookUrl -}}
{{- $text | replace "RUNBOOK_URL" .runbookUrl -}}
{{- else -}}
{{- $dashboard := omit (fromJson $text) "links" -}}
{{- range $dashboard.panels -}}{{- $_ := unset . "links" -}}{{- end -}}
{{- toPrettyJson $dashboard -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "passage-authz.hasBudget" -}}
{{- $switch := toString .Values.podDisruptionBudget.enabled -}}
{{- if or (eq $switch "true") (and (eq $switch "auto") (gt (include "passage-authz.replicas" . | int) 1)) -}}true{{- end -}}
{{- end -}}

{{/* The mounts of the service's container. */}}
{{- define "passage-authz.mounts" -}}
# By subPath, so that a pod keeps the file it started with: a change reaches new pods, one by one, and never all at once.
- name: config
  mountPath: /etc/passage-authz/config/authz.yaml
  subPath: authz.yaml
  readOnly: true
{{- if .Values.tls.existingSecret }}
- name: tls
  mountPath: /etc/passage-authz/tls
  readOnly: true
{{- end }}
{{- if .Values.keyStore.enabled }}
- name: key-store
  mountPath: /var/lib/passage-authz
  {{- if .Values.keyStore.readOnly }}
  readOnly: true
  {{- end }}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end -}}

{{/* (list $ configMap): the volumes of these mounts, with the configuration of this ConfigMap, or of existingSecret if it is empty. */}}
{{- define "passage-authz.volumes" -}}
{{- $configMap := index . 1 -}}
{{- with index . 0 -}}
- name: config
  {{- with $configMap }}
  configMap:
    name: {{ . }}
  {{- else }}
  secret:
    secretName: {{ .Values.existingSecret }}
    defaultMode: 0440
  {{- end }}
{{- with .Values.tls.existingSecret }}
- name: tls
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- if .Values.keyStore.enabled }}
- name: key-store
  {{- toYaml (.Values.keyStore.volume | default (dict "emptyDir" (dict "sizeLimit" (ternary "2Gi" "16Mi" .Values.revocation.enabled)))) | nindent 2 }}
{{- end }}
{{- with .Values.extraVolumes }}
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end -}}
{{- end -}}
