_lakelog_completion() {
    local type value
    COMPREPLY=()
    # What stands behind < and > is a file.
    if [[ ${COMP_WORDS[COMP_CWORD - 1]} == *[\<\>] ]]; then
        compopt -o default
        return
    fi
    while IFS=$'\t' read -r type value _; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            open) compopt -o nospace; COMPREPLY+=("$value") ;;
            plain) COMPREPLY+=("$value") ;;
        esac
    done < <(
        COMP_LINE=${COMP_LINE:0:COMP_POINT} COMP_WORDBREAKS=$COMP_WORDBREAKS \
            _LAKELOG_COMPLETE=bash_complete "${1/#\~/$HOME}" </dev/null 2>/dev/null
    )
}

complete -o nosort -F _lakelog_completion lakelog
