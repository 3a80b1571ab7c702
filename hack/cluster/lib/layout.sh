# shellcheck shell=bash
# The two clusters and everything that tells them apart: folders, addresses, names. Not behaviour. `layout NAME` sets
# the variables; every other file in this folder reads them.
#
#   host  10.N.128.1 ──veth── 10.N.128.2  node (a network namespace of its own)
#                                          ├ bridge 10.N.0.1/17: pods; also the node's address, apiserver :6443, DNS :53
#                                          └ 10.N.192.0/18: service addresses (nftables, kube-proxy)
# The host routes 10.N.0.0/16 to the node, so pods, services and the API server are reachable from it by address.
# Each node has its own network and mount namespace because two kube-proxies on one host would share the table "kube-proxy",
# two kubelets /var/lib/kubelet/device-plugins; and because interfaces, rules and mounts end with the last process.

# shellcheck disable=SC2034 # read by the other files
layout() {
  local second
  case ${1:-} in
    demo) second=88 ;;
    test) second=89 ;;
    *) fail "which cluster? NAME is demo or test" ;;
  esac
  NAME=$1
  STATE=$CLUSTERS/$NAME
  LOGS=$STATE/logs
  PIDS=$STATE/pids
  PKI=$STATE/pki
  KUBECONFIG_ADMIN=$STATE/kubeconfig

  NODE=dsn-$NAME
  LINK=dsn-$NAME                     # the host's end of the veth pair; interface names end at 15 characters
  TABLE=dsn-$NAME                    # the host's nft table
  CGROUP=dsn-$NAME                   # every process of the cluster is in it or below
  CLUSTER_NET=10.$second.0.0/16
  LINK_HOST=10.$second.128.1
  LINK_NODE=10.$second.128.2
  POD_NET=10.$second.0.0/17
  NODE_IP=10.$second.0.1
  SERVICE_NET=10.$second.192.0/18
  SERVICE_API=10.$second.192.1
  API=https://$NODE_IP:6443
}

# other_clusters: whether another cluster than NAME has anything on this machine.
other_clusters() {
  local folder
  for folder in "$CLUSTERS"/*/; do
    [[ ! -d $folder || $folder == "$STATE/" ]] || return 0
  done
  return 1
}

kubectl_() { "$TOOLS_BIN/kubectl" --kubeconfig "$KUBECONFIG_ADMIN" "$@"; }
