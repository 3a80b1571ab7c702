# shellcheck shell=bash
# CoreDNS as a process beside the kubelet, on the node's address. Not a pod: it is needed before images are, and it ends
# with the rest.

# upstream_name_servers: the host's, without those on loopback (systemd-resolved's stub), which the node cannot reach.
upstream_name_servers() {
  local file=/etc/resolv.conf
  [[ ! -s /run/systemd/resolve/resolv.conf ]] || file=/run/systemd/resolve/resolv.conf
  awk '$1 == "nameserver" && $2 !~ /^127\./ && $2 !~ /:/ { print $2 }' "$file" 2>/dev/null | head -n 3
}

start_dns() {
  local forward='' servers
  servers=$(upstream_name_servers | tr '\n' ' ')
  [[ -z $servers ]] || forward="forward . $servers"
  cat >"$STATE/Corefile" <<COREFILE
.:53 {
  bind $NODE_IP
  errors
  ready 127.0.0.1:8181
  kubernetes cluster.local in-addr.arpa {
    kubeconfig $PKI/coredns.kubeconfig
    pods insecure
    fallthrough in-addr.arpa
    ttl 5
  }
  $forward
  cache 5
}
COREFILE
  # Reads what kube-dns reads; upstream's role for it covers no EndpointSlices.
  kubectl_ apply -f - >/dev/null <<YAML
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: dsn-coredns}
rules:
  - {apiGroups: [""], resources: [services, pods, namespaces], verbs: [list, watch]}
  - {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: dsn-coredns}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: dsn-coredns}
subjects: [{kind: User, name: "system:coredns", apiGroup: rbac.authorization.k8s.io}]
YAML
  start_in_node coredns "$TOOLS_BIN/coredns" -conf "$STATE/Corefile"
  wait_for 30 "DNS ($LOGS/coredns.log)" in_node curl --silent --show-error --fail http://127.0.0.1:8181/ready
}
