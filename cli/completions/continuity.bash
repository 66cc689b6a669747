# bash completion for continuity(1)
# shellcheck shell=bash

_continuity_names() {
  continuity list --json 2>/dev/null | sed -n 's/^ *"name": "\(.*\)",$/\1/p' | sort -u
}

_continuity() {
  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
  local command=${COMP_WORDS[1]} words i
  local commands='list status upgrade stop check doctor trace supervise reload'
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    mapfile -t COMPREPLY < <(compgen -W "$commands --help --version" -- "$current")
    return
  fi
  for ((i = 2; i < COMP_CWORD; i++)); do
    if [ "${COMP_WORDS[i]}" = -- ]; then # of the server
      mapfile -t COMPREPLY < <(compgen -f -- "$current")
      return
    fi
  done
  case $previous in
    --exec | --out)
      mapfile -t COMPREPLY < <(compgen -f -- "$current")
      return
      ;;
    --env | --timeout | --start-timeout | --stop-timeout | --again) return ;;
    --supervisor)
      mapfile -t COMPREPLY < <(compgen -W "$(pgrep -f 'continuity supervise')" -- "$current")
      return
      ;;
  esac
  case $command in
    list) words='--json' ;;
    status) words="--json --watch $(_continuity_names)" ;;
    upgrade) words="--exec --env --timeout --json -- $(_continuity_names)" ;;
    stop) words="--json --timeout $(_continuity_names)" ;;
    check) words='--json --timeout --' ;;
    doctor) words="--json --command -- $(_continuity_names)" ;;
    supervise) words='--start-timeout --stop-timeout --again --no-keep --' ;;
    reload) words='--supervisor' ;;
    trace) words="--out $(_continuity_names)" ;;
    *) return ;;
  esac
  mapfile -t COMPREPLY < <(compgen -W "$words --help" -- "$current")
}

complete -F _continuity continuity
