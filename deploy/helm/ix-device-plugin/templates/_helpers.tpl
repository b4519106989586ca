{{/* Not empty in mode dra. */}}
{{- define "ix.dra" -}}
{{- if eq .Values.mode "dra" }}true{{ end -}}
{{- end }}

{{/*
The device plugin directory in the container. In mode dra it is below the kubelet's root directory, where
the driver's sockets are too: the kubelet opens these by the path that the driver reports.
*/}}
{{- define "ix.kubeletDir" -}}
{{ ternary .Values.kubelet.rootDir "/var/lib/kubelet" (eq .Values.mode "dra") }}/device-plugins
{{- end }}

{{/* Value of the label that selects the pods. */}}
{{- define "ix.name" -}}
{{ .Values.nameOverride | default (ternary "iluvatar-dra-driver" "iluvatar-device-plugin" (eq .Values.mode "dra")) }}
{{- end }}

{{/* Name of all objects except the ConfigMap. */}}
{{- define "ix.fullname" -}}
{{ .Values.fullnameOverride | default (include "ix.name" .) }}
{{- end }}

{{- define "ix.namespace" -}}
{{ .Values.namespaceOverride | default .Release.Namespace }}
{{- end }}

{{- define "ix.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (ternary (include "ix.fullname" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{/* The selector of the DaemonSet. Kubernetes does not allow it to change. */}}
{{- define "ix.selector" -}}
app.kubernetes.io/name: {{ include "ix.name" . }}
{{- end }}

{{- define "ix.labels" -}}
{{ include "ix.selector" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels that the chart sets itself. */}}
{{- define "ix.ownLabels" -}}
app.kubernetes.io/name app.kubernetes.io/instance app.kubernetes.io/version app.kubernetes.io/managed-by helm.sh/chart
{{- end }}

{{/* Requirements on a node's labels, as a list: of the mode, and of nodeAffinityPreset. */}}
{{- define "ix.nodeRequirements" -}}
- key: iluvatar.com/gpu.mode
  operator: {{ ternary "In" "NotIn" (eq .Values.mode "dra") }}
  values: [dra]
{{- if eq .Values.nodeAffinityPreset "nfd" }}
- key: feature.node.kubernetes.io/pci-1200_1e3e.present
  operator: In
  values: ["true"]
{{- end }}
{{- end }}

{{/* `affinity`, with these requirements in each required term for nodes: a node needs only one term. */}}
{{- define "ix.affinity" -}}
{{- $affinity := deepCopy .Values.affinity -}}
{{- $requirements := include "ix.nodeRequirements" . | fromYamlArray -}}
{{- $node := $affinity.nodeAffinity | default dict -}}
{{- $required := $node.requiredDuringSchedulingIgnoredDuringExecution | default dict -}}
{{- $terms := list -}}
{{- range $required.nodeSelectorTerms | default (list dict) -}}
{{- $expressions := concat (.matchExpressions | default list) $requirements -}}
{{- $terms = append $terms (set . "matchExpressions" $expressions) -}}
{{- end -}}
{{- $_ := set $node "requiredDuringSchedulingIgnoredDuringExecution" (dict "nodeSelectorTerms" $terms) -}}
{{ toYaml (set $affinity "nodeAffinity" $node) }}
{{- end }}

{{/* With maxSurge, Kubernetes' default for maxUnavailable would be refused. */}}
{{- define "ix.rollingUpdate" -}}
{{- $given := .Values.updateStrategy.rollingUpdate -}}
{{- if not $given -}}
{{ ternary "maxSurge: 1\nmaxUnavailable: 0" "maxUnavailable: 10%" (eq .Values.mode "dra") }}
{{- else if and $given.maxSurge (not (hasKey $given "maxUnavailable")) -}}
{{ toYaml (merge (dict "maxUnavailable" 0) $given) }}
{{- else -}}
{{ toYaml $given }}
{{- end -}}
{{- end }}

{{- define "ix.image" -}}
{{- $image := .Values.image -}}
{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}{{ with $image.digest }}@{{ . }}{{ end }}
{{- end }}

{{- define "ix.configMap" -}}
{{ .Values.existingConfigMap | default .Values.configMapName }}
{{- end }}

{{/* Where node labels are written; empty unless `config.labels.enabled`. */}}
{{- define "ix.labelDirectory" -}}
{{- with (.Values.config | default dict).labels -}}
{{- if .enabled -}}
{{ .directory | default "/etc/kubernetes/node-feature-discovery/features.d" }}
{{- end -}}
{{- end -}}
{{- end }}

{{/* A configuration file, with the keys that other values set: of (list ROOT CONFIGURATION). */}}
{{- define "ix.config" -}}
{{- $config := deepCopy (last . | default dict) -}}
{{- with first . -}}
{{- if .Values.cdi.enabled -}}
{{- $_ := set $config "cdi" .Values.cdi -}}
{{- else if and (include "ix.dra" .) (ne .Values.cdi.specDir "/var/run/cdi") -}}
{{- $_ := set $config "cdi" (dict "specDir" .Values.cdi.specDir) -}}
{{- end -}}
{{- if .Values.ixml.enabled -}}
{{- $health := $config.health | default dict -}}
{{- $ixml := $health.ixml | default "auto" -}}
{{- $_ := set $config "health" (merge (dict "ixml" $ixml) $health) -}}
{{- end -}}
{{- if .Values.identities.image -}}
{{- $discovery := merge (dict "identities" "/run/ix-identities/identities.csv") ($config.discovery | default dict) -}}
{{- $_ := set $config "discovery" $discovery -}}
{{- end -}}
{{- end -}}
{{- if $config -}}
{{ toYaml $config }}
{{- else -}}
# Empty: all keys have their defaults.
{{- end -}}
{{- end }}

{{- define "ix.probes" -}}
{{- if .Values.http.enabled -}}
startupProbe:
  httpGet:
    path: /livez
    port: http
  periodSeconds: 1
  timeoutSeconds: 5
  failureThreshold: 60
livenessProbe:
  httpGet:
    path: /livez
    port: http
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet:
    path: /readyz
    port: http
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
{{- else -}}
readinessProbe:
  exec:
    command:
      - ls
      - /var/lib/kubelet/device-plugins/iluvatar-gpu.sock
  periodSeconds: 5
{{- end -}}
{{- end }}

{{/* Writes the UUIDs, as the overlay uuids does. */}}
{{- define "ix.initContainers" -}}
{{- if .Values.identities.image -}}
initContainers:
  - name: identities
    image: {{ .Values.identities.image }}
    imagePullPolicy: {{ .Values.identities.pullPolicy }}
    command:
      - /bin/sh
      - -c
      - |
        export PATH="$PATH:/usr/local/corex/bin"
        export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:-/usr/local/corex/lib64:/usr/local/corex/lib}"
        cd /run/ix-identities
        if ixsmi --query-gpu=index,uuid,pci.bus_id --format=csv > new.csv; then
          mv new.csv identities.csv
        else
          echo "ixsmi failed: no UUIDs written" >&2
        fi
    securityContext:
      privileged: true
      {{- if .Values.seLinuxOptions }}
      seLinuxOptions:
        type: spc_t
      {{- end }}
    resources:
      {{- toYaml .Values.identities.resources | nindent 6 }}
    volumeMounts:
      - name: identities
        mountPath: /run/ix-identities
{{- end -}}
{{- end }}
