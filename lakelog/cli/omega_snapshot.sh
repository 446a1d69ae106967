#!/bin/sh
# Saves containers with their state in a lake, and rolls deployments back.
#
#   omega_snapshot.sh snapshot CONTAINER [TAG]
#   omega_snapshot.sh list-snapshots
#   omega_snapshot.sh tag-snapshot ID TAG
#   omega_snapshot.sh verify-snapshot ID
#   omega_snapshot.sh push-snapshot ID REGISTRY/REPO
#   omega_snapshot.sh restore-snapshot ID [CONTAINER]
#   omega_snapshot.sh rollback DEPLOYMENT [REVISION]
#   omega_snapshot.sh list-revisions DEPLOYMENT
#
# Options of `lakelog omega` may follow. An ID may be a tag. A terminal is asked before a restore or
# a rollback; without one, nobody is. The lake is LAKELOG_LAKE, by default ./lake.
# Exit codes: 0 success, 1 failure, 2 wrong usage, 3 a snapshot that is not intact.
set -eu

verbs="snapshot|list-snapshots|tag-snapshot|verify-snapshot|push-snapshot|restore-snapshot"
case "${1-}" in
  snapshot | list-snapshots | tag-snapshot | verify-snapshot | push-snapshot) ;;
  list-revisions) ;;
  restore-snapshot | rollback)
    verb=$1
    shift
    # First, as options of the engine may follow.
    if [ -t 0 ]; then set -- "$verb" "$@"; else set -- "$verb" --yes "$@"; fi
    ;;
  *)
    echo "usage: omega_snapshot.sh $verbs|rollback|list-revisions ..." >&2
    exit 2
    ;;
esac
exec lakelog omega "$@"
