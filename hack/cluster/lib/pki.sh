# shellcheck shell=bash
# The cluster's certificates and kubeconfigs: one CA, one key pair a component, made once and removed with the cluster.
# Not for production: the CA's key lies beside them (mode 600, like everything here).

# certificate FILE SUBJECT [SUBJECT-ALTERNATIVE-NAMES]: signed by the cluster's CA, for client and server use.
certificate() {
  local file=$PKI/$1 subject=$2 names=${3:-}
  # The certificate is written last, by rename: a crash before that means both are made again.
  [[ ! -s $file.crt ]] || return 0
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "$subject" \
    -keyout "$file.key" -out "$file.csr" 2>/dev/null
  {
    echo 'keyUsage=critical,digitalSignature'
    echo 'extendedKeyUsage=clientAuth,serverAuth'
    if [[ -n $names ]]; then echo "subjectAltName=$names"; fi
  } >"$file.ext"
  openssl x509 -req -in "$file.csr" -CA "$PKI/ca.crt" -CAkey "$PKI/ca.key" -CAcreateserial -days 3650 \
    -extfile "$file.ext" -out "$file.new" 2>/dev/null
  mv "$file.new" "$file.crt"
  rm -f "$file.csr" "$file.ext"
}

# kubeconfig FILE CERTIFICATE: with everything inside, so that it can be copied and works from any folder.
kubeconfig() {
  [[ ! -s $1 ]] || return 0
  cat >"$1.new" <<YAML
apiVersion: v1
kind: Config
current-context: $NODE
clusters:
  - name: $NODE
    cluster: {server: "$API", certificate-authority-data: $(base64 -w0 "$PKI/ca.crt")}
users:
  - name: $2
    user: {client-certificate-data: $(base64 -w0 "$PKI/$2.crt"), client-key-data: $(base64 -w0 "$PKI/$2.key")}
contexts:
  - name: $NODE
    context: {cluster: $NODE, user: $2}
YAML
  mv "$1.new" "$1"
}

# In a subshell, so that its stricter mask ends with it.
make_pki() (
  umask 077
  mkdir -p "$PKI"
  if [[ ! -s $PKI/ca.crt ]]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=$NODE" \
      -addext 'keyUsage=critical,keyCertSign,cRLSign,digitalSignature' -keyout "$PKI/ca.key" -out "$PKI/ca.new" 2>/dev/null
    mv "$PKI/ca.new" "$PKI/ca.crt"
  fi
  certificate apiserver /CN=kube-apiserver "IP:$NODE_IP,IP:$SERVICE_API,IP:$LINK_NODE,IP:127.0.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
  certificate apiserver-kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client
  certificate front-proxy-client /CN=front-proxy-client
  certificate service-accounts /CN=service-accounts
  certificate admin /O=system:masters/CN=admin
  certificate controller-manager /CN=system:kube-controller-manager
  certificate scheduler /CN=system:kube-scheduler
  certificate kube-proxy /CN=system:kube-proxy
  certificate coredns /CN=system:coredns
  # The Node authorizer knows a kubelet by exactly this user and group.
  certificate kubelet "/O=system:nodes/CN=system:node:$NODE" "IP:$NODE_IP,DNS:$NODE"

  kubeconfig "$KUBECONFIG_ADMIN" admin
  local component
  for component in controller-manager scheduler kube-proxy coredns kubelet; do
    kubeconfig "$PKI/$component.kubeconfig" "$component"
  done
)
