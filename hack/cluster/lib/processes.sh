# shellcheck shell=bash disable=SC2153 # NAME and the like come from layout.sh
# Starting, recognising and ending the cluster's processes. Not a supervisor: what dies stays dead until the next `up`.
# A process is ours if its pid file has its pid *and* its start time (pids are reused), or if it is in our cgroup.

# start_time PID: field 22 of /proc/PID/stat, counted after the name, which may contain blanks.
start_time() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  # shellcheck disable=SC2086 # split on purpose
  set -- ${stat##*) }
  [[ $1 != Z ]] || return 1
  printf '%s' "${20}"
}

# pid_of DAEMON: prints the pid if it runs and is the one we started.
pid_of() {
  local pid since
  read -r pid since 2>/dev/null <"$PIDS/$1" || return 1
  [[ $(start_time "$pid") == "$since" ]] || return 1
  printf '%s' "$pid"
}

# start DAEMON COMMAND…: in a session of its own, output to logs/DAEMON.log, inside our cgroup. No-op if it runs.
start() {
  local daemon=$1
  shift
  if pid_of "$daemon" >/dev/null; then return 0; fi
  rm -f "$PIDS/$daemon"
  # shellcheck disable=SC2016 # expanded inside
  # 9>&-: a daemon must not hold the lock of `up`. exec keeps pid and start time, also through nsenter and unshare.
  setsid --fork bash -c '
    set -euo pipefail
    pids=$1 daemon=$2 cgroup=$3
    shift 3
    echo $$ >"$cgroup/cgroup.procs"
    stat=$(cat /proc/$$/stat)
    read -r -a fields <<<"${stat##*) }"
    echo "$$ ${fields[19]}" >"$pids/.$daemon.new"
    mv "$pids/.$daemon.new" "$pids/$daemon"
    exec "$@"
  ' "start-$daemon" "$PIDS" "$daemon" "$(daemon_cgroups)" "$@" 9>&- </dev/null >>"$LOGS/$daemon.log" 2>&1
  wait_for 5 "the pid file of $daemon" test -s "$PIDS/$daemon"
}

# must_run DAEMON: exit status 3 (see wait_for) and the end of its log if it has ended.
must_run() {
  if ! pid_of "$1" >/dev/null; then
    echo "$1 has ended; the end of $LOGS/$1.log:"
    tail --lines=3 "$LOGS/$1.log"
    return 3
  fi
}

# stop DAEMON…: at once. None of those that are ever stopped alone has state.
stop() {
  local daemon pid
  for daemon; do
    if pid=$(pid_of "$daemon"); then kill -KILL "$pid" 2>/dev/null || true; fi
    rm -f "$PIDS/$daemon"
  done
}

# cgroup_roots: our folder in every mounted hierarchy (one for cgroup v2, one for each controller for v1).
cgroup_roots() {
  local hierarchy
  if [[ -f /sys/fs/cgroup/cgroup.controllers ]]; then
    printf '/sys/fs/cgroup/%s\n' "$CGROUP"
    return
  fi
  # Links are second names (cpu → cpu,cpuacct). Also "unified" of a hybrid machine: kubelet makes a folder there.
  for hierarchy in /sys/fs/cgroup/*/; do
    [[ -e $hierarchy/cgroup.procs && ! -L ${hierarchy%/} ]] || continue
    printf '%s%s\n' "$hierarchy" "$CGROUP"
  done
}

# daemon_cgroups: where our daemons go: one hierarchy is enough to find them again. A leaf, because v2 allows no
# processes in a cgroup that has children.
daemon_cgroups() {
  if [[ -f /sys/fs/cgroup/cgroup.controllers ]]; then
    printf '/sys/fs/cgroup/%s/daemons' "$CGROUP"
  else
    printf '/sys/fs/cgroup/pids/%s/daemons' "$CGROUP"
  fi
}

make_cgroups() {
  local root parent file
  while read -r root; do
    mkdir -p "$root"
    parent=${root%/*}
    # A new cpuset of cgroup v1 is empty and lets no process in until it has cpus and memory nodes.
    for file in cpuset.cpus cpuset.mems; do
      if [[ -e $root/$file && -z $(cat "$root/$file") && -s $parent/$file ]]; then
        cat "$parent/$file" >"$root/$file"
      fi
    done
  done < <(cgroup_roots)
  mkdir -p "$(daemon_cgroups)"
}

# our_processes: every pid in our cgroups: daemons, shims, containers, whoever their parent is by now.
our_processes() {
  local root
  while read -r root; do
    [[ -d $root ]] || continue
    find "$root" -name cgroup.procs -exec cat {} + 2>/dev/null
  done < <(cgroup_roots) | sort -un
}

# end_all_processes: until none is left (a container may fork while we look).
end_all_processes() {
  local deadline=$((EPOCHSECONDS + 30)) pids
  while pids=$(our_processes) && [[ -n $pids ]]; do
    ((EPOCHSECONDS < deadline)) || fail "processes of cluster $NAME do not end: ${pids//$'\n'/ }"
    # shellcheck disable=SC2086 # a list
    kill -KILL $pids 2>/dev/null || true
    sleep 0.1
  done
}

# remove_cgroups: fails while one is busy (the kernel is a moment behind the last process).
remove_cgroups() {
  local root busy=0
  while read -r root; do
    [[ -d $root ]] || continue
    find "$root" -depth -type d -exec rmdir {} + 2>/dev/null || busy=1
  done < <(cgroup_roots)
  return "$busy"
}
