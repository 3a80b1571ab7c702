# shellcheck shell=bash disable=SC2153 # NAME and the like come from layout.sh
# Importing image archives into the cluster's containerd. Not building them: that is hack/images.

# content_of ARCHIVE: a hash that stands for the images in it. The manifest names everything else by digest, and reading
# only it takes no time.
content_of() {
  # Docker archives have the one, OCI archives the other; tar complains about the one that is missing.
  { tar --extract --to-stdout --seek --file="$1" manifest.json index.json 2>/dev/null || true; } | sha256sum | cut -c1-32
}

# load_archives ARCHIVE…: imports those whose content is not there yet. The mark is a label on the image in containerd,
# so that it goes with the image.
load_archives() {
  local archive content present name
  present=$(ctr_ images list)
  for archive; do
    [[ -r $archive ]] || fail "no archive $archive"
    content=$(content_of "$archive")
    if [[ $present == *"dsn.archive=$content"* ]]; then continue; fi
    # New pods take the new image of a name (IfNotPresent looks only at the name); running ones keep theirs.
    while read -r name; do
      ctr_ images label "$name" "dsn.archive=$content" >/dev/null
      say "$NAME: loaded $name"
    done < <(ctr_ images import --snapshotter "$(snapshotter)" "$archive" | awk '/^unpacking/ { print $2 }')
  done
  forget_replaced
}

# forget_replaced: kubelet collects no images here (node.sh), so what a new image of the same name replaced would stay for
# ever. containerd keeps it under a name made of its digest. Running containers keep their files.
forget_replaced() {
  local -A named=()
  local name digest old=() images
  images=$(ctr_ images list | awk 'NR > 1 { print $1, $3 }')
  while read -r name digest; do [[ $name == sha256:* ]] || named[$digest]=1; done <<<"$images"
  while read -r name digest; do
    if [[ $name == sha256:* && -z ${named[$digest]:-} ]]; then old+=("$name"); fi
  done <<<"$images"
  ((${#old[@]} == 0)) || ctr_ images remove "${old[@]}" >/dev/null
}
