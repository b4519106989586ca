# shellcheck shell=sh disable=SC2154
# What the run installs, as YAML on standard output.

namespace_manifest() {
    cat <<YAML
apiVersion: v1
kind: Namespace
metadata:
  name: $namespace
  labels:
    app.kubernetes.io/part-of: ix-device-plugin-e2e
    # The helper pod is privileged, and the plugin mounts directories of the host.
    pod-security.kubernetes.io/enforce: privileged
YAML
}

# The scripts of the pods; with `machine`, the machine too.
scripts_manifest() {
    set -- "$@" --from-file="$here/pods/report.sh" --from-file="$here/pods/node.sh"
    "$KUBECTL" create configmap scripts --namespace "$namespace" --dry-run=client --output yaml "$@"
}

# pod_shell: what a container needs beside its image to have a shell: nothing, if E2E_POD_IMAGE has one,
# otherwise the node's own /usr. The plugin's image has /bin and /lib as links into /usr.
pod_shell_mounts() {
    cat <<YAML
        - name: scripts
          mountPath: /e2e
          readOnly: true
YAML
    [ -n "${E2E_POD_IMAGE-}" ] || cat <<YAML
        - name: host-usr
          mountPath: /usr
          readOnly: true
YAML
}

pod_shell_volumes() {
    cat <<YAML
    - name: scripts
      configMap:
        name: scripts
YAML
    [ -n "${E2E_POD_IMAGE-}" ] || cat <<YAML
    - name: host-usr
      hostPath:
        path: /usr
        type: Directory
YAML
}

# pod_head NAME ROLE
pod_head() {
    cat <<YAML
apiVersion: v1
kind: Pod
metadata:
  name: $1
  namespace: $namespace
  labels:
    ix-e2e/role: $2
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 2
  automountServiceAccountToken: false
  enableServiceLinks: false
  nodeSelector:
    kubernetes.io/hostname: "$hostname"
  tolerations:
    - operator: Exists
YAML
}

# pod_manifest NAME COUNT: a pod that requests COUNT devices and reports what it got.
pod_manifest() {
    pod_head "$1" workload
    cat <<YAML
  containers:
    - name: main
      image: "$pod_image"
      imagePullPolicy: IfNotPresent
      command: ["/bin/sh", "/e2e/report.sh"]
      env:
        - name: E2E_MAJOR
          value: "$major"
      securityContext:
        capabilities:
          # To try device numbers that the container has no node for.
          add: ["MKNOD"]
      resources:
        limits:
          iluvatar.com/gpu: "$2"
      volumeMounts:
YAML
    pod_shell_mounts
    echo '  volumes:'
    pod_shell_volumes
}

# Unpacks the machine below /run, makes device nodes, sends signals to the plugin, and cleans up.
helper_manifest() {
    pod_head helper helper
    cat <<YAML
  hostPID: true
  initContainers:
    - name: unpack
      image: "$IMAGE"
      imagePullPolicy: IfNotPresent
      args: ["fixture", "unpack", "/e2e/machine.node", "/host/run/$namespace"]
      securityContext:
        privileged: true
      volumeMounts:
        - name: scripts
          mountPath: /e2e
          readOnly: true
        - name: host-run
          mountPath: /host/run
  containers:
    - name: main
      image: "$pod_image"
      imagePullPolicy: IfNotPresent
      command: ["/bin/sh", "/e2e/node.sh", "hold"]
      env:
        - name: E2E_RUN
          value: "$namespace"
        - name: E2E_MACHINE
          value: "/host/run/$namespace"
      securityContext:
        privileged: true
      volumeMounts:
        - name: host-run
          mountPath: /host/run
        - name: host-dev
          mountPath: /host/dev
        - name: device-plugins
          mountPath: /host/device-plugins
YAML
    pod_shell_mounts
    cat <<YAML
  volumes:
    - name: host-run
      hostPath:
        path: /run
        type: Directory
    - name: host-dev
      hostPath:
        path: /dev
        type: Directory
    - name: device-plugins
      hostPath:
        path: /var/lib/kubelet/device-plugins
        type: Directory
YAML
    pod_shell_volumes
}

# The ConfigMap of the plugin with this configuration.
config_map() {
    cat <<YAML
apiVersion: v1
kind: ConfigMap
metadata:
  name: ix-config
  namespace: $namespace
data:
  ix-config: |
    $1
YAML
}

# What changes in the shipped DaemonSet: image, node, and the machine that it serves.
daemon_set_patch() {
    cat <<YAML
apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: iluvatar-device-plugin
  namespace: kube-system
spec:
  template:
    spec:
      nodeSelector:
        kubernetes.io/hostname: "$hostname"
      tolerations:
        - operator: Exists
      containers:
        - name: iluvatar-device-plugin
          image: "$IMAGE"
          imagePullPolicy: IfNotPresent
          env:
            - name: IX_ROOT
              value: /machine
            - name: IX_E2E_RUN
              value: "$namespace"
          volumeMounts:
            - name: machine
              mountPath: /machine
              readOnly: true
      volumes:
        - name: machine
          hostPath:
            path: /run/$namespace
            type: Directory
YAML
}

# plugin_manifests OVERLAY: the shipped base or an overlay, with this patch, in the run's namespace.
plugin_manifests() {
    directory=$work/$1
    case $1 in
        base) source=deploy/kustomize/base ;;
        *) source=deploy/kustomize/overlays/$1 ;;
    esac
    mkdir -p "$directory" && daemon_set_patch >"$directory/daemon-set.yaml" &&
        cat >"$directory/kustomization.yaml" <<YAML
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: $namespace
resources:
  - $above/$source
patches:
  - path: daemon-set.yaml
YAML
    "$KUBECTL" kustomize "$directory"
}
