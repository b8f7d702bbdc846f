{{/* What all pods have in common. Each is called with (list $ "component"). */}}

{{- define "fourstep.labels" -}}
{{- $ := index . 0 -}}
app.kubernetes.io/name: fourstep
app.kubernetes.io/instance: {{ $.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
app.kubernetes.io/version: {{ $.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $.Release.Service }}
helm.sh/chart: {{ $.Chart.Name }}-{{ $.Chart.Version }}
{{- end }}

{{- define "fourstep.selector" -}}
{{- $ := index . 0 -}}
app.kubernetes.io/name: fourstep
app.kubernetes.io/instance: {{ $.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "fourstep.image" -}}
{{- $ := index . 0 -}}
image: "{{ $.Values.image.repository }}:{{ eq (index . 1) "worker" | ternary $.Values.image.workerTag ($.Values.image.tag | default $.Chart.AppVersion) }}"
imagePullPolicy: {{ $.Values.image.pullPolicy }}
{{- end }}

{{/* The image's account from the start, no rights, and no place to write but the volume. */}}
{{- define "fourstep.podSecurity" -}}
automountServiceAccountToken: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- define "fourstep.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
{{- end }}

{{/* Called with (list $ (dict NAME value …)): the component's own variables first, then secrets, then
     `environment`. A name that comes again is left out: Kubernetes keeps one of two, and server-side apply refuses them. */}}
{{- define "fourstep.environment" -}}
{{- $ := index . 0 -}}
{{- $own := merge (dict "FOURSTEP_METRICS__LISTEN" "0.0.0.0:9464") (index . 1) -}}
- name: DATABASE_URL
  valueFrom:
    secretKeyRef: { name: {{ $.Values.database.secret | quote }}, key: {{ $.Values.database.key | quote }} }
{{- $taken := dict "DATABASE_URL" true -}}
{{- range $name, $value := $own }}
{{- $_ := set $taken $name true }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- range $.Values.secretEnvironment }}
{{- if not (hasKey $taken .name) }}
{{- $_ := set $taken .name true }}
- name: {{ .name }}
  valueFrom:
    secretKeyRef: { name: {{ .secret | quote }}, key: {{ .key | quote }} }
{{- end }}
{{- end }}
{{- range $name, $value := $.Values.environment }}
{{- if not (hasKey $taken $name) }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- define "fourstep.volumes" -}}
{{- $ := index . 0 -}}
volumes:
  - name: data
    persistentVolumeClaim:
      claimName: {{ $.Values.data.existingClaim | default (printf "%s-data" $.Release.Name) | quote }}
{{- end }}

{{- define "fourstep.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
