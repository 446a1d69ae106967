#compdef lakelog

_lakelog_completion() {
    local line
    local -a lines offer plain open
    lines=("${(@f)$(
        COMP_LINE="${(j: :)words[1,CURRENT-1]} $QIPREFIX$PREFIX" \
            _LAKELOG_COMPLETE=zsh_complete "${words[1]/#\~/$HOME}" </dev/null 2>/dev/null
    )}")
    # Of --option=value, the value alone is completed.
    [[ $PREFIX == -*=* ]] && compset -P '*='
    for line in $lines; do
        offer=("${(@ps:\t:)line}")
        case $offer[1] in
            dir) _path_files -/ ;;
            file) _path_files ;;
            open) open+=("$offer[2]${offer[3]:+:$offer[3]}") ;;
            plain) plain+=("$offer[2]${offer[3]:+:$offer[3]}") ;;
        esac
    done
    (( $#plain )) && _describe -V lakelog plain
    (( $#open )) && _describe -V lakelog open -S ''
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _lakelog_completion "$@"
else
    (( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
    compdef _lakelog_completion lakelog
fi
