function _lakelog_completion
    set -l command (string replace -r '^~' $HOME -- (commandline -opc)[1])
    set -l line (commandline -cp | string collect)
    for offer in (env COMP_LINE="$line" _LAKELOG_COMPLETE=fish_complete $command </dev/null 2>/dev/null)
        set -l members (string split \t -- $offer)
        switch $members[1]
            case dir
                string replace -r '^' -- "$members[3]" (__fish_complete_directories $members[2])
            case file
                string replace -r '^' -- "$members[3]" (__fish_complete_path $members[2])
            case '*'
                printf '%s\t%s\n' $members[2] $members[3]
        end
    end
end

complete --no-files --command lakelog --arguments "(_lakelog_completion)"
