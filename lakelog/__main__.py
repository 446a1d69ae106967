"""`python -m lakelog` is the command line, and so is the program `lakelog`."""

import signal

# Until the command line can report it, Ctrl-C ends the process by the signal alone: nothing is
# begun yet, and the traceback of an import would say nothing. Under nohup it stays ignored.
_is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
if _is_default:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from lakelog.cli import main  # noqa: E402

if _is_default:
    signal.signal(signal.SIGINT, signal.default_int_handler)

if __name__ == "__main__":
    main()
