{{- define "ix.name" -}}
{{ .Values.nameOverride | default "iluvatar-device-plugin" }}
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
{{- end }}

{{- define "ix.image" -}}
{{- $image := .Values.image -}}
{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}{{ with $image.digest }}@{{ . }}{{ end }}
{{- end }}

{{- define "ix.configMap" -}}
{{ .Values.existingConfigMap | default .Values.configMapName }}
{{- end }}

{{/* The configuration file: `config`, with the keys that cdi and ixml set. */}}
{{- define "ix.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- if .Values.cdi.enabled -}}
{{- $_ := set $config "cdi" .Values.cdi -}}
{{- end -}}
{{- if .Values.ixml.enabled -}}
{{- $health := $config.health | default dict -}}
{{- $ixml := $health.ixml | default "auto" -}}
{{- $_ := set $config "health" (merge (dict "ixml" $ixml) $health) -}}
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
