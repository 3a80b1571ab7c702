# shellcheck shell=bash
# Which cluster `make demo` and `make test` use, and the few things that differ between the kinds. In this order: the one
# that DSN_E2E_KUBECONFIG names; kind or minikube when a Docker engine answers; the local cluster. Never the ambient
# KUBECONFIG: it may be someone's production. Sourced after hack/cluster/lib/{paths,progress}.sh.

# choose_target NAME: sets TARGET (given, kind, minikube, local), TARGET_NAME (demo or test) and KUBECONFIG.
choose_target() {
  TARGET_NAME=$1
  if [[ -n ${DSN_E2E_KUBECONFIG:-} ]]; then
    TARGET=given
    KUBECONFIG=$(realpath "$DSN_E2E_KUBECONFIG")
  elif docker_answers && command -v kind >/dev/null; then
    TARGET=kind
    KUBECONFIG=$CLUSTERS/kind-$TARGET_NAME.kubeconfig
  elif docker_answers && command -v minikube >/dev/null; then
    TARGET=minikube
    KUBECONFIG=$CLUSTERS/minikube-$TARGET_NAME.kubeconfig
  else
    TARGET=local
    KUBECONFIG=$("$REPOSITORY/hack/cluster/cluster" kubeconfig "$TARGET_NAME")
  fi
  export KUBECONFIG
}

docker_answers() { command -v docker >/dev/null && timeout 10 docker info >/dev/null 2>&1; }

# describe_target: one sentence for the plan.
describe_target() {
  case $TARGET in
    given) echo "the cluster of $KUBECONFIG (DSN_E2E_KUBECONFIG)" ;;
    kind) echo "a kind cluster named dsn-$TARGET_NAME, on the Docker engine that answers here" ;;
    minikube) echo "a minikube profile named dsn-$TARGET_NAME, on the Docker engine that answers here" ;;
    local) echo "a local Kubernetes cluster named $TARGET_NAME, in folders and network namespaces of its own" ;;
  esac
}

# tool NAME: the pinned program, or the machine's own where the pinned one is not built (kind and minikube users have one).
tool() {
  if [[ -x $TOOLS_BIN/$1 ]]; then echo "$TOOLS_BIN/$1"; else command -v "$1"; fi
}

# need_tool NAME FAMILY: builds it where there is none.
need_tool() { tool "$1" >/dev/null || "$REPOSITORY/hack/cluster/build-tools" "$2"; }

target_up() {
  mkdir -p "$CLUSTERS"
  case $TARGET in
    given) ;;
    kind)
      kind get clusters 2>/dev/null | grep -qx "dsn-$TARGET_NAME" || kind create cluster --name "dsn-$TARGET_NAME" --kubeconfig "$KUBECONFIG" --wait 120s
      kind export kubeconfig --name "dsn-$TARGET_NAME" --kubeconfig "$KUBECONFIG"
      ;;
    minikube) minikube start --profile "dsn-$TARGET_NAME" ;;
    local) "$REPOSITORY/hack/cluster/cluster" up "$TARGET_NAME" ;;
  esac
}

# target_images: what this checkout builds, in the cluster. A given cluster is expected to have them already.
target_images() {
  local name
  case $TARGET in
    given) say "images: expected in the cluster (make images REGISTRY=…, or make kind-load)" ;;
    kind) "$REPOSITORY/hack/images" kind-load "dsn-$TARGET_NAME" ;;
    minikube)
      "$REPOSITORY/hack/images" build
      for name in kubo ipfs-cluster rabbitmq operator capture transcoder camera; do
        minikube image load --profile "dsn-$TARGET_NAME" "$("$REPOSITORY/hack/images" archive "$name")"
      done
      ;;
    local) "$REPOSITORY/hack/images" load "$TARGET_NAME" ;;
  esac
}

target_down() {
  case $TARGET in
    given) ;;
    kind) kind delete cluster --name "dsn-$TARGET_NAME" --kubeconfig "$KUBECONFIG" ;;
    minikube) minikube delete --profile "dsn-$TARGET_NAME" ;;
    local) "$REPOSITORY/hack/cluster/cluster" down "$TARGET_NAME" ;;
  esac
  [[ $TARGET == given ]] || rm -f "$KUBECONFIG"
}
