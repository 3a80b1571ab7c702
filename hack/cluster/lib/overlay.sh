# shellcheck shell=bash
# One question about the machine, asked by trying it.

# overlay_works FOLDER: whether the kernel mounts overlay on this file system (not inside most containers).
overlay_works() {
  local probe=$1/overlay-probe status=0
  mkdir -p "$probe"/{lower,upper,work,merged}
  mount -t overlay overlay -o "lowerdir=$probe/lower,upperdir=$probe/upper,workdir=$probe/work" "$probe/merged" 2>/dev/null ||
    status=1
  ((status == 1)) || umount "$probe/merged"
  rm -rf "$probe"
  return "$status"
}
