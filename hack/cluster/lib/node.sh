# shellcheck shell=bash
# containerd, kubelet and kube-proxy: the node on which pods run. Each configuration is written anew by every `up`.

# May this machine lower a process's OOM score? A build VM or container may lack CAP_SYS_RESOURCE (bit 24).
may_lower_oom_score() {
  local effective
  effective=$(awk '/^CapEff/ { print $2 }' /proc/self/status)
  (((16#$effective >> 24) & 1))
}

snapshotter() { if overlay_works "$STATE"; then echo overlayfs; else echo native; fi; }

configure_containerd() {
  local snapshotter restrict_oom=false
  snapshotter=$(snapshotter)
  # Without it every sandbox dies with "can't get final child's PID from pipe" where the capability is missing.
  may_lower_oom_score || restrict_oom=true
  cat >"$STATE/containerd.toml" <<TOML
version = 2
root = "$STATE/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/dsn/pause:dev"
  restrict_oom_score_adj = $restrict_oom
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "$snapshotter"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$STATE/cni"
TOML
  mkdir -p "$STATE/cni"
  # No ipMasq: the host's one rule (network.sh) does it for what leaves the cluster; inside, pods see each other's address.
  cat >"$STATE/cni/10-pods.conflist" <<JSON
{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "pods", "isGateway": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "$POD_NET", "gateway": "$NODE_IP"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}
]}
JSON
}

configure_kubelet() {
  # dnsPolicy Default and the forwarder need name servers that the node reaches; a stub on the host's loopback is not one.
  upstream_name_servers | sed 's/^/nameserver /' >"$STATE/resolv.conf"
  cat >"$STATE/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $NODE_IP
healthzBindAddress: $NODE_IP
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: "$PKI/ca.crt"}}
authorization: {mode: Webhook}
tlsCertFile: $PKI/kubelet.crt
tlsPrivateKeyFile: $PKI/kubelet.key
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /$CGROUP
failCgroupV1: false
failSwapOn: false
clusterDNS: [$NODE_IP]
clusterDomain: cluster.local
resolvConf: $STATE/resolv.conf
podPidsLimit: 1024
# A developer's disk is often 90 % full, which is where the defaults begin to evict.
evictionHard: {memory.available: 100Mi, nodefs.available: 200Mi, nodefs.inodesFree: "1%", imagefs.available: 200Mi, imagefs.inodesFree: "1%"}
# No garbage collection of images: ours come from no registry, so what is removed can't be pulled again.
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
# Tests edit ConfigMaps and wait; the default of one minute makes them wait for nothing.
syncFrequency: 10s
YAML
}

configure_kube_proxy() {
  # maxPerCore 0: the size of the conntrack table is the host's and cannot be set from the node's namespace.
  cat >"$STATE/kube-proxy.yaml" <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
bindAddress: $NODE_IP
healthzBindAddress: $NODE_IP:10256
metricsBindAddress: $NODE_IP:10249
hostnameOverride: $NODE
clusterCIDR: $POD_NET
conntrack: {maxPerCore: 0}
clientConnection: {kubeconfig: "$PKI/kube-proxy.kubeconfig"}
YAML
}

ctr_() { in_node ctr --address /run/containerd/containerd.sock --namespace k8s.io "$@"; }

containerd_answers() { must_run containerd && ctr_ version; }

start_containerd() {
  configure_containerd
  # Shims that outlived their containerd hold mounts in a namespace that the new one cannot see: all or none.
  start_in_node containerd containerd --config "$STATE/containerd.toml" --log-level=warn
  wait_for 30 "containerd ($LOGS/containerd.log)" containerd_answers
}

start_node() {
  remember_sysctl "${KUBELET_SYSCTLS[@]}"
  configure_kubelet
  configure_kube_proxy
  start_in_node kubelet "$TOOLS_BIN/kubelet" --config="$STATE/kubelet.yaml" --kubeconfig="$PKI/kubelet.kubeconfig" \
    --hostname-override="$NODE" --node-ip="$NODE_IP"
  start_in_node kube-proxy "$TOOLS_BIN/kube-proxy" --config="$STATE/kube-proxy.yaml"
  wait_for 90 "node $NODE to be Ready ($LOGS/kubelet.log)" node_ready
}

# node_ready: says the node, and this kubelet said it: after a crash the API server still has the last one's word.
node_ready() {
  local ready beat
  must_run kubelet || return
  ready=$(kubectl_ get node "$NODE" --request-timeout=5s -o \
    'jsonpath={range .status.conditions[?(@.type=="Ready")]}{.lastHeartbeatTime} {.status} {.message}{end}') || return 1
  printf '%s' "$ready"
  beat=${ready%% *}
  [[ $ready == *" True "* ]] && (($(date --date="$beat" +%s) >= $(stat --format=%Y "$PIDS/kubelet")))
}
