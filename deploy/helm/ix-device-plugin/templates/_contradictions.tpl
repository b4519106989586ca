{{/*
Values that contradict each other. Each message names both and the remedy. The plugin itself reports
problems inside `config`, with their line.
*/}}
{{- define "ix.contradictions" -}}
{{- $values := .Values -}}
{{- $config := $values.config | default dict -}}
{{- include "ix.replacedValues" $values -}}
{{- $rolling := $values.updateStrategy.rollingUpdate | default dict -}}

{{- if and $values.existingConfigMap $values.nodeConfigs -}}
{{- fail "nodeConfigs and existingConfigMap are both set: with existingConfigMap the chart creates no ConfigMap. Put the keys ix-config.NODE into yours." -}}
{{- end -}}
{{- if and $values.existingConfigMap $config -}}
{{- fail "config and existingConfigMap are both set: the plugin reads only one of them. Move config into your ConfigMap, or leave existingConfigMap empty." -}}
{{- end -}}
{{- if and $values.existingConfigMap (ne $values.configMapName "ix-config") -}}
{{- fail "configMapName and existingConfigMap are both set: with existingConfigMap the chart creates no ConfigMap. Set only one of them." -}}
{{- end -}}
{{- include "ix.configContradictions" (dict "root" . "name" "config" "config" $config) -}}
{{- range $node, $of_node := $values.nodeConfigs -}}
{{- include "ix.configContradictions" (dict "root" $ "name" (printf "nodeConfigs.%s" $node) "config" ($of_node | default dict)) -}}
{{- end -}}
{{- if include "ix.dra" . -}}
{{- include "ix.draContradictions" . -}}
{{- end -}}
{{- if and (not $values.http.enabled) (or $values.podMonitor.enabled $values.prometheusRule.enabled $values.dashboard.enabled) -}}
{{- fail "podMonitor, prometheusRule and dashboard need the metrics that http serves. Set http.enabled to true, or disable them." -}}
{{- end -}}
{{- if and $rolling.maxSurge (hasKey $rolling "maxUnavailable") (ne (toString $rolling.maxSurge) "0") (ne (toString ($rolling.maxUnavailable | default 0)) "0") -}}
{{- fail "updateStrategy.rollingUpdate has both maxSurge and maxUnavailable: Kubernetes accepts only one of them. Set the other to 0." -}}
{{- end -}}
{{- if hasKey $values.podLabels "app.kubernetes.io/name" -}}
{{- fail "podLabels sets app.kubernetes.io/name, which the DaemonSet's selector uses: set nameOverride instead." -}}
{{- end -}}
{{- range (include "ix.ownLabels" . | splitList " ") -}}
{{- if hasKey $values.commonLabels . -}}
{{- fail (printf "commonLabels sets %s, which the chart sets itself: remove it." .) -}}
{{- end -}}
{{- end -}}
{{- range $label, $_ := $values.podLabels -}}
{{- if hasKey $values.commonLabels $label -}}
{{- fail (printf "commonLabels and podLabels both set %s: set it in one of them." $label) -}}
{{- end -}}
{{- end -}}
{{- if and $values.networkPolicy.enabled $values.podMonitor.enabled (not $values.networkPolicy.ingressFrom) -}}
{{- fail "podMonitor.enabled and networkPolicy.enabled are true, but networkPolicy.ingressFrom is empty: Prometheus could not read the metrics. Name its pods there." -}}
{{- end -}}
{{- $mounted := list "/ixconfig" (include "ix.kubeletDir" .) "/var/lib/kubelet/pod-resources" "/sys" "/dev" "/run/udev" -}}
{{- range $values.extraVolumeMounts -}}
{{- if has (trimSuffix "/" .mountPath) $mounted -}}
{{- fail (printf "extraVolumeMounts mounts %s, which the chart mounts itself: remove it." .mountPath) -}}
{{- end -}}
{{- end -}}
{{- $own := dict "IX_HTTP" "http" "IX_LOG_FORMAT" "logFormat" "IX_CONFIG" "existingConfigMap" "IX_KUBELET_DIR" "kubelet.devicePluginsDir" "IX_POD_RESOURCES_SOCKET" "kubelet.podResourcesDir" "SPLIT_BOARD" "config.flags.splitboard" -}}
{{- range $variable := $values.extraEnv -}}
{{- if has $variable.name (list "NODE_NAME" "POD_UID") -}}
{{- fail (printf "extraEnv sets %s, which the chart sets itself: remove it." $variable.name) -}}
{{- end -}}
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

{{- define "ix.draContradictions" -}}
{{- $dra := .Values.dra -}}
{{- if semverCompare "<1.34.0-0" .Capabilities.KubeVersion.Version -}}
{{- fail (printf "mode is dra, which needs Kubernetes 1.34; this is %s. Set mode to device-plugin." .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- if not .Values.http.enabled -}}
{{- fail "http.enabled is false, but mode is dra, whose probes need it. Set http.enabled to true." -}}
{{- end -}}
{{- if .Values.cdi.enabled -}}
{{- fail "cdi.enabled is true, but mode is dra, which always uses CDI. Set cdi.enabled to false; cdi.specDir still counts." -}}
{{- end -}}
{{- if and (not .Values.serviceAccount.create) (not .Values.serviceAccount.name) -}}
{{- fail "serviceAccount.create is false and serviceAccount.name is empty, but mode is dra: the account default would get the driver's rights. Name an account." -}}
{{- end -}}
{{- if and $dra.boardResource (eq $dra.boardResource $dra.chipResource) -}}
{{- fail (printf "dra.boardResource and dra.chipResource are both %s: only one class can serve a resource. Remove one." $dra.boardResource) -}}
{{- end -}}
{{- if and (not $dra.deviceClasses) (or $dra.boardResource $dra.chipResource) -}}
{{- fail "dra.boardResource or dra.chipResource is set, but dra.deviceClasses is false: no class would serve it. Set it in your own DeviceClass." -}}
{{- end -}}
{{- end }}

{{/*
Values of the replaced chart that mean nothing here; all at once. The schema allows them only so that
this message can name what replaces them.
*/}}
{{- define "ix.replacedValues" -}}
{{- $replaced := dict
  "cfgName" "use configMapName, or existingConfigMap for a ConfigMap of your own."
  "ixConfig" "use config, which has the same keys: config.flags.splitboard, config.sharing.timeSlicing.replicas."
  "livenessProbe" "remove it; the probes follow http.enabled."
  "podSecurityContext" "remove it; seLinuxOptions is a value of its own."
  "resourceName" "use config.resourceName."
  "securityContext" "remove it; the plugin needs no permissions except those that cdi.enabled and ixml.enabled explain."
  "startupProbe" "remove it; the probes follow http.enabled."
  "volumeMounts" "remove it; the chart mounts what the plugin needs, and extraVolumeMounts adds others."
  "volumes" "remove it; the chart mounts what the plugin needs, and extraVolumes adds others."
-}}
{{- $messages := list -}}
{{- range $name, $remedy := $replaced -}}
{{- if hasKey $ $name -}}
{{- $messages = append $messages (printf "%s is a value of the replaced chart: %s" $name $remedy) -}}
{{- end -}}
{{- end -}}
{{- if $messages -}}
{{- fail (join "\n" $messages) -}}
{{- end -}}
{{- end }}

{{/* The same for a configuration: `config`, or one of nodeConfigs. */}}
{{- define "ix.configContradictions" -}}
{{- if hasKey .config "mode" -}}
{{- fail (printf "%[1]s.mode is set: use mode, which also sets permissions and mounts." .name) -}}
{{- end -}}
{{- if hasKey .config "cdi" -}}
{{- fail (printf "%[1]s.cdi is set: use cdi.enabled, cdi.specDir and cdi.deviceSpecs, which also mount the directory." .name) -}}
{{- end -}}
{{- if and .root.Values.ixml.enabled (eq (toString (.config.health | default dict).ixml) "off") -}}
{{- fail (printf "ixml.enabled is true, but %[1]s.health.ixml is off: the library would not be loaded. Set ixml.enabled to false, or remove %[1]s.health.ixml." .name) -}}
{{- end -}}
{{- if and (not .root.Values.ixml.enabled) (isAbs (toString (.config.health | default dict).ixml)) -}}
{{- fail (printf "%[1]s.health.ixml names a library, but ixml.enabled is false: the container could neither read it nor open a GPU. Set ixml.enabled to true." .name) -}}
{{- end -}}
{{- if (.config.flags | default dict).usevolcano -}}
{{- fail (printf "%[1]s.flags.usevolcano is true: Volcano mode is not supported. Remove it." .name) -}}
{{- end -}}
{{- if (.config.flags | default dict).reset_gpu -}}
{{- fail (printf "%[1]s.flags.reset_gpu is true: GPU reset before an allocation is not supported. Remove it." .name) -}}
{{- end -}}
{{- if hasKey (.config.sharing | default dict) "mps" -}}
{{- fail (printf "%[1]s.sharing.mps is set: MPS is not supported. Use %[1]s.sharing.timeSlicing." .name) -}}
{{- end -}}
{{- if and .config.resources .config.resourceName -}}
{{- fail (printf "%[1]s.resources and %[1]s.resourceName are both set: each resource has its own name. Remove resourceName." .name) -}}
{{- end -}}
{{- if and .root.Values.identities.image (hasKey (.config.discovery | default dict) "identities") -}}
{{- fail (printf "%[1]s.discovery.identities and identities.image are both set: the image's init container writes the file. Set only one of them." .name) -}}
{{- end -}}
{{- end }}
