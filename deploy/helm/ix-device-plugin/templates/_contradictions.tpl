{{/*
Values that contradict each other. Each message names both and the remedy. The plugin itself reports
problems inside `config`, with their line.
*/}}
{{- define "ix.contradictions" -}}
{{- $values := .Values -}}
{{- $config := $values.config -}}
{{- $flags := $config.flags | default dict -}}
{{- $sharing := $config.sharing | default dict -}}
{{- $health := $config.health | default dict -}}
{{- $rolling := $values.updateStrategy.rollingUpdate | default dict -}}

{{- if and $values.existingConfigMap $config -}}
{{- fail "config and existingConfigMap are both set: the plugin reads only one of them. Move config into your ConfigMap, or leave existingConfigMap empty." -}}
{{- end -}}
{{- if and $values.existingConfigMap (ne $values.configMapName "ix-config") -}}
{{- fail "configMapName and existingConfigMap are both set: with existingConfigMap the chart creates no ConfigMap. Set only one of them." -}}
{{- end -}}
{{- if hasKey $config "cdi" -}}
{{- fail "config.cdi is set: use cdi.enabled, cdi.specDir and cdi.deviceSpecs, which also mount the directory." -}}
{{- end -}}
{{- if and $values.ixml.enabled (eq (toString $health.ixml) "off") -}}
{{- fail "ixml.enabled is true, but config.health.ixml is off: the library would not be loaded. Set ixml.enabled to false, or remove config.health.ixml." -}}
{{- end -}}
{{- if and (not $values.ixml.enabled) (isAbs (toString $health.ixml)) -}}
{{- fail "config.health.ixml names a library, but ixml.enabled is false: the container could neither read it nor open a GPU. Set ixml.enabled to true." -}}
{{- end -}}
{{- if $flags.usevolcano -}}
{{- fail "config.flags.usevolcano is true: Volcano mode is not supported. Remove it." -}}
{{- end -}}
{{- if $flags.reset_gpu -}}
{{- fail "config.flags.reset_gpu is true: GPU reset before an allocation is not supported. Remove it." -}}
{{- end -}}
{{- if hasKey $sharing "mps" -}}
{{- fail "config.sharing.mps is set: MPS is not supported. Use config.sharing.timeSlicing." -}}
{{- end -}}
{{- if and $config.resources $config.resourceName -}}
{{- fail "config.resources and config.resourceName are both set: each resource has its own name. Remove resourceName." -}}
{{- end -}}
{{- if and (not $values.http.enabled) (or $values.podMonitor.enabled $values.prometheusRule.enabled $values.dashboard.enabled) -}}
{{- fail "podMonitor, prometheusRule and dashboard need the metrics that http serves. Set http.enabled to true, or disable them." -}}
{{- end -}}
{{- if and $rolling.maxSurge (ne (toString $rolling.maxSurge) "0") (ne (toString ($rolling.maxUnavailable | default 0)) "0") -}}
{{- fail "updateStrategy.rollingUpdate has both maxSurge and maxUnavailable: Kubernetes accepts only one of them. Set the other to 0." -}}
{{- end -}}
{{- if hasKey $values.podLabels "app.kubernetes.io/name" -}}
{{- fail "podLabels sets app.kubernetes.io/name, which the DaemonSet's selector uses: set nameOverride instead." -}}
{{- end -}}
{{- $own := dict "IX_HTTP" "http" "IX_LOG_FORMAT" "logFormat" "IX_CONFIG" "existingConfigMap" "IX_KUBELET_DIR" "kubelet.devicePluginsDir" "IX_POD_RESOURCES_SOCKET" "kubelet.podResourcesDir" "SPLIT_BOARD" "config.flags.splitboard" -}}
{{- range $variable := $values.extraEnv -}}
{{- with get $own $variable.name -}}
{{- fail (printf "extraEnv sets %s, which would override the chart's own value: use %s." $variable.name .) -}}
{{- end -}}
{{- end -}}
{{- $alerts := list -}}
{{- range (.Files.Get "files/alerts.yaml" | fromYaml).groups -}}
{{- range .rules -}}
{{- $alerts = append $alerts .alert -}}
{{- end -}}
{{- end -}}
{{- range $values.prometheusRule.disabled -}}
{{- if not (has . $alerts) -}}
{{- fail (printf "prometheusRule.disabled names %s, which is not an alert. Alerts: %s." . (join ", " $alerts)) -}}
{{- end -}}
{{- end -}}
{{- end }}
