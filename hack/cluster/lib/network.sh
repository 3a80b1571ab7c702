# shellcheck shell=bash
# The node's namespaces and its way to the host: a holder process, a veth pair, a bridge, routes, the host's NAT rule.
# Not the pods' interfaces (CNI makes them) and not the services (kube-proxy). See layout.sh for the picture.

# node_pid: a process in the node's network *and* mount namespace: the holder, or one that outlived it.
node_pid() { pid_of holder || pid_of kubelet || pid_of containerd; }

# in_node COMMAND…: runs it inside the node's namespaces.
in_node() {
  local pid
  pid=$(node_pid) || fail "cluster $NAME has no node; start it with: hack/cluster/cluster up $NAME"
  nsenter --net="/proc/$pid/ns/net" --mount="/proc/$pid/ns/mnt" -- "$@"
}

# The folders that containerd, kubelet and the CNI plugins have compiled in. In the node's mount namespace each is a
# folder of the cluster, so that nothing is shared with another containerd or kubelet of this machine.
PRIVATE_FOLDERS=(/var/lib/kubelet /var/lib/cni /var/log/pods /var/log/containers)
# The same, but gone with the namespace: sockets and namespace files mean nothing after the processes have ended.
PRIVATE_TMPFS=(/run/containerd /run/netns)

start_holder() {
  local folder
  node_pid >/dev/null && return
  for folder in "${PRIVATE_FOLDERS[@]}"; do mkdir -p "$folder" "$STATE/node$folder"; done
  for folder in "${PRIVATE_TMPFS[@]}"; do mkdir -p "$folder"; done
  # shellcheck disable=SC2016 # expanded inside
  start holder unshare --net --mount --propagation private -- bash -c '
    set -euo pipefail
    state=$1; shift
    # Shared among themselves (kubelet needs it for mountPropagation), not with the host.
    mount --make-rshared /
    while [ "$1" != tmpfs ]; do mount --bind "$state/node$1" "$1"; shift; done; shift
    for folder; do mount -t tmpfs -o mode=755 tmpfs "$folder"; done
    touch "$state/holder-ready"
    exec sleep infinity
  ' holder "$STATE" "${PRIVATE_FOLDERS[@]}" tmpfs "${PRIVATE_TMPFS[@]}"
  wait_for 10 "the node's namespaces ($LOGS/holder.log)" test -e "$STATE/holder-ready"
}

# node_is_whole: its holder and containerd run and its folders are in place.
node_is_whole() {
  local folder
  pid_of holder >/dev/null && pid_of containerd >/dev/null || return 1
  for folder in "${PRIVATE_FOLDERS[@]}" "${PRIVATE_TMPFS[@]}"; do in_node mountpoint --quiet "$folder" || return 1; done
}

# Removes the folders that start_holder had to make, as far as they are empty; only with the last cluster: removing a
# folder takes away, without a word, what is mounted on it in every other mount namespace.
remove_private_folders() {
  if other_clusters; then return 0; fi
  rmdir --ignore-fail-on-non-empty -- "${PRIVATE_FOLDERS[@]}" "${PRIVATE_TMPFS[@]}" 2>/dev/null || true
}

node_link() {
  local pid
  pid=$(node_pid)
  if ! ip link show "$LINK" >/dev/null 2>&1; then
    ip link add "$LINK" type veth peer name uplink netns "$pid"
  fi
  ip address replace "$LINK_HOST/30" dev "$LINK"
  ip link set "$LINK" up
  in_node bash -euc "
    ip link set lo up
    ip address replace $LINK_NODE/30 dev uplink
    ip link set uplink up
    ip route replace default via $LINK_HOST
    # Made before kubelet starts: it is the node's address. CNI finds it and adds the pods to it.
    ip link show pods >/dev/null 2>&1 || ip link add pods type bridge
    ip address replace $NODE_IP/17 dev pods
    ip link set pods up
    echo 1 >/proc/sys/net/ipv4/ip_forward
    # Without it a pod that calls a service whose endpoint is on the same bridge gets answers from the wrong address.
    echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables
  "
  ip route replace "$CLUSTER_NET" via "$LINK_NODE" dev "$LINK"
}

# host_rules: what leaves the cluster gets the host's address; one table of our own, replaced as a whole.
host_rules() {
  remember_sysctl net.ipv4.ip_forward
  echo 1 >/proc/sys/net/ipv4/ip_forward
  nft -f - <<NFT
table ip $TABLE
delete table ip $TABLE
table ip $TABLE {
  chain postrouting {
    type nat hook postrouting priority srcnat;
    ip saddr $CLUSTER_NET ip daddr != $CLUSTER_NET masquerade
  }
}
NFT
}

# unmount_below FOLDER: defensive; our mounts are in the node's namespace and gone with it.
unmount_below() {
  local mount
  while read -r mount; do
    umount --lazy "$mount"
  done < <(awk -v below="$1/" 'index($5, below) == 1 { print $5 }' /proc/self/mountinfo | sort -r)
}

remove_network() {
  # The pair goes with the namespace; a crash between making it and moving it may leave this end.
  if ip link show "$LINK" >/dev/null 2>&1; then ip link delete "$LINK"; fi
  nft delete table ip "$TABLE" 2>/dev/null || true
}

# start_in_node DAEMON COMMAND…: like start, inside the node's namespaces.
start_in_node() {
  local daemon=$1 pid
  shift
  pid=$(node_pid)
  start "$daemon" nsenter --net="/proc/$pid/ns/net" --mount="/proc/$pid/ns/mnt" -- "$@"
}
