# shellcheck shell=bash
# Where things live: the per-user cache and the folders in it. Not a place for behaviour. Sourced by the scripts of
# hack/, which set REPOSITORY first.

# Everything that is built or started lives in one per-user cache, never in the repository.
DSN_CACHE=${DSN_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/dsn}
# shellcheck disable=SC2034 # read by the scripts that source this file
{
  TOOLS_CACHE=$DSN_CACHE/tools
  TOOLS_BIN=$DSN_CACHE/tools/bin
  IMAGES_CACHE=$DSN_CACHE/images
  CLUSTERS=$DSN_CACHE/clusters
}

# hash_of FILE…: one short hash of the names' contents and of what comes on stdin (flags).
hash_of() {
  { cat -- "$@"; cat; } | sha256sum | cut -c1-12
}
