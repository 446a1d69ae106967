#!/bin/sh
# Saves the state directory STATE_DIRECTORY (several: separated by colons) in a lake.
#
#   create_state_snapshot.sh [NAME]
#
# Without NAME the snapshot is named by its time, such as state-20250403-123456, and the newest
# STATE_SNAPSHOT_RETENTION (24) of these are kept. Prints the name, with what was saved.
# SNAPSHOT_ENABLED=false: does nothing. The lake is LAKELOG_LAKE, by default ./lake.
# Exit codes: 0 saved or switched off, 1 failure, 2 wrong usage.
set -eu

usage() {
  echo "usage: create_state_snapshot.sh [NAME]" >&2
  exit 2
}

[ $# -le 1 ] || usage
case "${1-}" in
  -*) usage ;;
esac
exec lakelog state save ${1+"$1"}
