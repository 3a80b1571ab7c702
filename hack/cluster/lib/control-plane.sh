# shellcheck shell=bash
# etcd, kube-apiserver, kube-controller-manager, kube-scheduler: as upstream ships them, with the flags that one node
# needs. Not tuned: admission plugins and features are upstream's defaults, PodSecurity among them.

start_etcd() {
  # Loopback of the node's own network namespace: no user of the host and no pod reaches it, so no TLS.
  start_in_node etcd "$TOOLS_BIN/etcd" \
    --name="$NODE" --data-dir="$STATE/etcd" --log-level=warn \
    --listen-client-urls=http://127.0.0.1:2379 --advertise-client-urls=http://127.0.0.1:2379 \
    --listen-peer-urls=http://127.0.0.1:2380 --initial-advertise-peer-urls=http://127.0.0.1:2380 \
    --initial-cluster="$NODE=http://127.0.0.1:2380"
}

# What the operator writes, and nothing else: tests count it.
audit_policy() {
  cat <<'EOF'
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: None
    resources: [{group: coordination.k8s.io}]
  - level: Metadata
    users: ["system:serviceaccount:dsn-system:dsn-operator"]
    verbs: [create, update, patch, delete, deletecollection]
  - level: None
EOF
}

start_apiserver() {
  audit_policy >"$STATE/audit.yaml"
  start_in_node kube-apiserver "$TOOLS_BIN/kube-apiserver" \
    --etcd-servers=http://127.0.0.1:2379 \
    --advertise-address="$NODE_IP" --secure-port=6443 \
    --tls-cert-file="$PKI/apiserver.crt" --tls-private-key-file="$PKI/apiserver.key" \
    --client-ca-file="$PKI/ca.crt" \
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true \
    --service-cluster-ip-range="$SERVICE_NET" \
    --service-account-issuer=https://kubernetes.default.svc.cluster.local \
    --service-account-key-file="$PKI/service-accounts.crt" \
    --service-account-signing-key-file="$PKI/service-accounts.key" \
    --requestheader-client-ca-file="$PKI/ca.crt" --requestheader-allowed-names=front-proxy-client \
    --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group \
    --requestheader-extra-headers-prefix=X-Remote-Extra- \
    --proxy-client-cert-file="$PKI/front-proxy-client.crt" --proxy-client-key-file="$PKI/front-proxy-client.key" \
    --kubelet-certificate-authority="$PKI/ca.crt" \
    --kubelet-client-certificate="$PKI/apiserver-kubelet-client.crt" \
    --kubelet-client-key="$PKI/apiserver-kubelet-client.key" \
    --kubelet-preferred-address-types=InternalIP \
    --audit-policy-file="$STATE/audit.yaml" --audit-log-path="$STATE/audit.log" --audit-log-mode=blocking
}

start_controllers() {
  # No leader election: there is one of each, and after a kill the next would wait for the old lease to run out.
  start_in_node kube-controller-manager "$TOOLS_BIN/kube-controller-manager" \
    --kubeconfig="$PKI/controller-manager.kubeconfig" \
    --authentication-kubeconfig="$PKI/controller-manager.kubeconfig" \
    --authorization-kubeconfig="$PKI/controller-manager.kubeconfig" \
    --leader-elect=false --use-service-account-credentials=true \
    --service-account-private-key-file="$PKI/service-accounts.key" --root-ca-file="$PKI/ca.crt" \
    --cluster-signing-cert-file="$PKI/ca.crt" --cluster-signing-key-file="$PKI/ca.key"
  start_in_node kube-scheduler "$TOOLS_BIN/kube-scheduler" \
    --kubeconfig="$PKI/scheduler.kubeconfig" \
    --authentication-kubeconfig="$PKI/scheduler.kubeconfig" \
    --authorization-kubeconfig="$PKI/scheduler.kubeconfig" \
    --leader-elect=false
}

apiserver_ready() {
  must_run etcd && must_run kube-apiserver && kubectl_ get --raw=/readyz --request-timeout=2s
}

start_control_plane() {
  # After a while without an API server the others try again only every 30 s and more: they begin anew with it.
  if ! pid_of kube-apiserver >/dev/null; then stop kube-controller-manager kube-scheduler kube-proxy coredns; fi
  start_etcd
  start_apiserver
  wait_for 90 "the API server ($LOGS/kube-apiserver.log)" apiserver_ready
  # Not before: the controller manager gives up if it cannot read its authentication configuration.
  start_controllers
}
