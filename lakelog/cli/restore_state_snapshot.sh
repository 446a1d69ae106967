#!/bin/sh
# Lists and restores what create_state_snapshot.sh saved.
#
#   restore_state_snapshot.sh list         list the snapshots, newest first
#   restore_state_snapshot.sh info NAME    show one
#   restore_state_snapshot.sh latest       restore the newest
#   restore_state_snapshot.sh NAME         restore this one
#   restore_state_snapshot.sh clean N      delete all but the newest N
#
# A snapshot is checked before anything is overwritten, and what is overwritten is saved first.
# A terminal is asked; without one, nobody is. Where STATE_DIRECTORY names one directory, the
# snapshot goes there; otherwise every directory goes where it was.
# RESTORE_ENABLED=false: restores nothing. The lake is LAKELOG_LAKE, by default ./lake.
# Exit codes: 0 success, 1 failure, 2 wrong usage.
set -eu

usage() {
  echo "usage: restore_state_snapshot.sh list | info NAME | latest | NAME | clean N" >&2
  exit 2
}

yes=--yes
[ ! -t 0 ] || yes=
case "${1-}" in
  "" | -*) usage ;;
  list)
    [ $# -eq 1 ] || usage
    exec lakelog state list
    ;;
  info)
    [ $# -eq 2 ] || usage
    exec lakelog state info "$2"
    ;;
  clean)
    [ $# -eq 2 ] || usage
    exec lakelog state clean ${yes:+"$yes"} "$2"
    ;;
  *)
    [ $# -eq 1 ] || usage
    case "${STATE_DIRECTORY-}" in
      "" | *:*) exec lakelog state restore ${yes:+"$yes"} "$1" ;;
      *) exec lakelog state restore ${yes:+"$yes"} --to "$STATE_DIRECTORY" "$1" ;;
    esac
    ;;
esac
