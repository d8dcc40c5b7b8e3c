{{- define "nag.name" -}}
{{- if contains .Chart.Name .Release.Name -}}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{- end -}}
{{- end -}}

{{- define "nag.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "nag.labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "nag.selector" . }}
{{- end -}}

{{- define "nag.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "nag.name" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{/* The workers, each with the defaults for what it does not say. */}}
{{- define "nag.workers" -}}
{{- $workers := list -}}
{{- range .Values.workers -}}
{{- $worker := mergeOverwrite (deepCopy $.Values.workerDefaults) . -}}
{{- if not $worker.models -}}{{- fail (printf "workers: %s serves no models" .name) -}}{{- end -}}
{{- $workers = append $workers $worker -}}
{{- end -}}
{{- dict "workers" $workers | toJson -}}
{{- end -}}

{{/* Not empty where some worker may be scaled to zero. */}}
{{- define "nag.mayBeNone" -}}
{{- range (include "nag.workers" . | fromJson).workers -}}
{{- if and .autoscaling.enabled (eq (int .autoscaling.minReplicas) 0) -}}yes{{- end -}}
{{- end -}}
{{- end -}}

{{/* Not empty where some worker has pods that exchange tensors. */}}
{{- define "nag.hasGroups" -}}
{{- range (include "nag.workers" . | fromJson).workers -}}{{- if gt (int .nodes) 1 -}}yes{{- end -}}{{- end -}}
{{- end -}}

{{- define "nag.models" -}}
{{- $models := list -}}
{{- range (include "nag.workers" . | fromJson).workers -}}{{- $models = concat $models .models -}}{{- end -}}
{{- $models | uniq | join "," -}}
{{- end -}}

{{- define "nag.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "nag.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* NAG_ variables: the chart's, then the user's, which win. Call with a list of the root, the chart's and the user's. */}}
{{- define "nag.environment" -}}
{{- $root := index . 0 -}}
{{- $all := merge (dict) (index . 2) $root.Values.settings (index . 1) (include "nag.sharedSettings" $root | fromYaml) -}}
{{- range $name, $value := $all }}
- name: {{ $name }}
  {{- /* YAML's numbers come as floats, and a large one would be written with an exponent. */}}
  value: {{ ternary (int64 $value) $value (and (kindIs "float64" $value) (eq (printf "%.0f" (float64 $value)) (printf "%v" (int64 $value)))) | toString | quote }}
{{- end }}
{{- end -}}

{{- define "nag.sharedSettings" -}}
NAG_SECRETS_DIR: /run/secrets/nag
{{- if .Values.catalog }}
NAG_CATALOG: /etc/nag/models.toml
{{- end }}
{{- if .Values.hub.existingSecret }}
HF_TOKEN_PATH: /run/secrets/nag/hf_token
{{- end }}
{{- if .Values.artifacts.url }}
{{- if and (eq .Values.links.answeredBy "api") (not .Values.links.existingSecret) }}
{{- fail "links.existingSecret is needed: each API would sign links that the others refuse" }}
{{- end }}
NAG_ARTIFACTS_URL: {{ .Values.artifacts.url | quote }}
NAG_ARTIFACTS_LINKS: {{ .Values.links.answeredBy }}
{{- end }}
{{- if not .Values.redis.existingSecret }}
NAG_REDIS_URL: {{ required "redis.existingSecret or redis.url is needed" .Values.redis.url | quote }}
{{- end }}
{{- end -}}

{{- define "nag.mounts" -}}
- {name: secrets, mountPath: /run/secrets/nag, readOnly: true}
- {name: data, mountPath: /var/lib/nag}
- {name: tmp, mountPath: /tmp}
{{- if .Values.catalog }}
- {name: catalog, mountPath: /etc/nag, readOnly: true}
{{- end }}
{{- end -}}

{{/* Secrets become files that are named as the variables they stand for. */}}
{{- define "nag.volumes" -}}
- name: secrets
  {{- if not (or .Values.redis.existingSecret .Values.hub.existingSecret .Values.artifacts.existingSecret .Values.links.existingSecret .Values.webhooks.existingSecret) }}
  emptyDir: {}
  {{- else }}
  projected:
    defaultMode: 0440
    sources:
      {{- if .Values.redis.existingSecret }}
      - secret:
          name: {{ .Values.redis.existingSecret }}
          items: [{key: {{ .Values.redis.key | quote }}, path: nag_redis_url}]
      {{- end }}
      {{- if .Values.hub.existingSecret }}
      - secret:
          name: {{ .Values.hub.existingSecret }}
          items: [{key: {{ .Values.hub.key | quote }}, path: hf_token}]
      {{- end }}
      {{- if .Values.artifacts.existingSecret }}
      - secret:
          name: {{ .Values.artifacts.existingSecret }}
          items: [{key: {{ .Values.artifacts.optionsKey | quote }}, path: nag_artifacts_options}]
      {{- end }}
      {{- if .Values.links.existingSecret }}
      - secret:
          name: {{ .Values.links.existingSecret }}
          items: [{key: {{ .Values.links.key | quote }}, path: nag_url_secrets}]
      {{- end }}
      {{- if .Values.webhooks.existingSecret }}
      - secret:
          name: {{ .Values.webhooks.existingSecret }}
          items: [{key: {{ .Values.webhooks.key | quote }}, path: nag_webhook_secret}]
      {{- end }}
  {{- end }}
- name: data
  {{- if .Values.artifacts.url }}
  emptyDir: {}
  {{- else }}
  persistentVolumeClaim:
    claimName: {{ .Values.artifacts.existingClaim | default (printf "%s-data" (include "nag.name" .)) }}
  {{- end }}
- name: tmp
  emptyDir: {sizeLimit: 2Gi}
{{- if .Values.catalog }}
- name: catalog
  configMap: {name: {{ include "nag.name" . }}-catalog}
{{- end }}
{{- end -}}

{{- define "nag.podPlace" -}}
{{- with .nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
