{{/*
What a value is when null has removed it. Helm deletes such a key, and a subchart may set whole maps to null. What is not here is left out
of the manifests then, and Kubernetes or the service has a default for it.
*/}}
{{- define "passage-authz.defaults.values" -}}
nameOverride: ""
fullnameOverride: ""
commonLabels: {}
commonAnnotations: {}
clusterDomain: cluster.local
global: {imageRegistry: "", imagePullSecrets: []}
passage: {appId: "", baseUrl: ""}
config: {}
existingConfigMap: ""
existingSecret: ""
configCheck: {enabled: false, activeDeadlineSeconds: 60}
image: {registry: "", repository: passage-authz/passage-authz, tag: "", digest: "", pullSecrets: []}
tls: {existingSecret: "", clientCertificates: false}
keyStore: {enabled: false, readOnly: false, volume: {}}
revocation: {enabled: false, port: 8082, senders: []}
service: {port: 50051, appProtocol: grpc, headless: false, annotations: {}, labels: {}}
serviceAccount: {create: true, name: "", annotations: {}}
resources: {}
podSecurityContext: {}
securityContext: {}
probes: {type: ""}
preStopSleepSeconds: 5
strategy: {}
autoscaling: {enabled: false, minReplicas: 2, maxReplicas: 10, metrics: [], behavior: {}}
podDisruptionBudget: {enabled: auto, maxUnavailable: 1}
topologySpreadConstraints: []
podLabels: {}
podAnnotations: {}
deploymentLabels: {}
deploymentAnnotations: {}
networkPolicy: {enabled: false, callers: [], scrapers: [], keyPorts: [443], extraIngress: [], extraEgress: []}
metrics:
  serviceMonitor: {enabled: false, labels: {}, annotations: {}}
  podMonitor: {enabled: false, labels: {}, annotations: {}}
  prometheusRule: {enabled: false, labels: {}, alertLabels: {}, job: "", keySetAgeSeconds: 3600, clockSkewSeconds: 30, certificateDays: 14, revocationAgeSeconds: 60}
  dashboard: {enabled: false, labels: {}, annotations: {}}
istio:
  enabled: false
  provider: passage-authz
  namespace: ""
  selector: {}
  targetRefs: []
  rules: [{}]
  rootNamespace: istio-system
  callers: {enabled: true, principals: ["*"], namespaces: []}
  egressHosts: []
  plaintextAdmin: false
envoyGateway: {enabled: false, namespace: "", targetRefs: [], targetSelectors: [], timeout: 500ms, recomputeRoute: false}
{{- end -}}

{{/* Fills them in. Each template begins with it: Helm renders them in any order. */}}
{{- define "passage-authz.defaults" -}}
{{- include "passage-authz.fill" (list .Values (include "passage-authz.defaults.values" . | fromYaml)) -}}
{{- end -}}

{{/* (list $values $defaults). Not merge, which takes false, 0 and empty lists for absent. */}}
{{- define "passage-authz.fill" -}}
{{- $values := index . 0 -}}
{{- range $key, $default := index . 1 -}}
{{- $value := get $values $key -}}
{{- if or (not (hasKey $values $key)) (kindIs "invalid" $value) -}}
{{- $_ := set $values $key $default -}}
{{- else if and (kindIs "map" $value) (kindIs "map" $default) -}}
{{- include "passage-authz.fill" (list $value $default) -}}
{{- end -}}
{{- end -}}
{{- end -}}
