# shellcheck shell=bash
# Kernel settings that are the machine's and not a namespace's: kubelet sets some of them whatever we say. The values from
# before the first cluster are kept and put back when the last one goes.

SYSCTLS_BEFORE=$CLUSTERS/sysctls-before
# shellcheck disable=SC2034 # read by node.sh
KUBELET_SYSCTLS=(vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops kernel.keys.root_maxkeys kernel.keys.root_maxbytes)

remember_sysctl() {
  local name
  for name; do
    grep -qs "^$name " "$SYSCTLS_BEFORE" || echo "$name $(cat "/proc/sys/${name//.//}")" >>"$SYSCTLS_BEFORE"
  done
}

restore_sysctls() {
  local name value
  if other_clusters; then return 0; fi
  [[ -f $SYSCTLS_BEFORE ]] || return 0
  while read -r name value; do
    echo "$value" >"/proc/sys/${name//.//}" || true
  done <"$SYSCTLS_BEFORE"
  rm -f "$SYSCTLS_BEFORE"
}
