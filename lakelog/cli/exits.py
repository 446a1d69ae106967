"""How a run ends: one table of exit codes, one line for every mistake.

    0    done
    1    failed
    2    wrong usage: an option, argument, setting, name or event that cannot be
    3    checked and found wrong: verify, audit, repair, check-proof, diff --exit-code,
         and watch --once where a file went unread
    130  interrupted

A reader that closed our pipe had what it wanted: that is 0. LAKELOG_DEBUG=1 shows the traceback.
"""

from __future__ import annotations

import errno
import functools
import os
import re
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import click

from lakelog.engine.messages import EngineMessage
from lakelog.errors import (
    InvalidEvent,
    InvalidKey,
    InvalidName,
    InvalidRecipe,
    InvalidSearch,
    InvalidSetting,
    InvalidView,
    LakelogError,
    NotProven,
    QueryFailed,
)
from lakelog.render import visible
from lakelog.runtime.closest import did_you_mean
from lakelog.runtime.tables import ModuleFiles

_LOADED_NS = time.time_ns()
DONE, FAILED, USAGE, WRONG, INTERRUPTED = 0, 1, 2, 3, 130


class ReaderLeft(Exception):
    """Raised when the reader of our pipe closed it: it had what it wanted."""


CODES: dict[type[BaseException], int] = {
    InvalidSetting: USAGE,
    InvalidName: USAGE,
    InvalidEvent: USAGE,
    InvalidSearch: USAGE,
    InvalidView: USAGE,
    InvalidRecipe: USAGE,
    InvalidKey: USAGE,
    NotProven: WRONG,
    LakelogError: FAILED,
    click.UsageError: USAGE,
    click.ClickException: FAILED,
    click.Abort: INTERRUPTED,
    KeyboardInterrupt: INTERRUPTED,
    ReaderLeft: DONE,
    BrokenPipeError: DONE,
    OSError: FAILED,
    Exception: FAILED,
}
"""The code of an error is that of the first class here which it belongs to."""

_DISK_WORDS = {
    errno.ENOSPC: "the disk is full: free space and run it again; nothing acknowledged is lost",
    errno.EDQUOT: "the disk quota is used up: free space and run it again;"
    " nothing acknowledged is lost",
    errno.EFBIG: "the file would grow beyond its limit: raise it (ulimit -f) and run it again;"
    " nothing acknowledged is lost",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "no permission",
    errno.EPERM: "no permission",
    errno.ENOENT: "no such file or directory",
    errno.ENOTDIR: "a part of this path is a file, not a directory",
    errno.EISDIR: "this is a directory, not a file",
}


# click has no error classes of its own for these: only the words tell what was mistyped.
_NO_OPTION = re.compile(r"No such option:? '?(--[\w-]+)")
_NO_LETTER = re.compile(r"No such option:? '?-[^-]")
_NO_VERB = re.compile(r"No such command '([^']*)'")
_NO_CHOICE = re.compile(r"'([^']*)' is not one of (.*)")
_QUOTED = re.compile(r"'([^']*)'")


@functools.cache
def hints() -> dict[str, Any]:
    """Return what is said to words of other tools, and to options that a verb lacks."""
    return ModuleFiles(__file__).tables("hints.toml")


def guard(run: Callable[[], object]) -> int:
    """Run a command line; report what went wrong in one line; return the exit code."""
    try:
        code = run()
        # Inside the try: a full disk or a closed pipe often shows only now.
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        return code if isinstance(code, int) else DONE
    except (ReaderLeft, BrokenPipeError):
        _drop_stdout()
        return DONE
    except SystemExit as error:  # a completion request
        return error.code if isinstance(error.code, int) else DONE
    except BaseException as error:
        code = _report(error)
        try:
            sys.stdout.flush()
        except (OSError, ValueError, AttributeError):  # full, or closed
            _drop_stdout()
        return code


def exit_if(reason: object, code: int) -> None:
    """End the verb with a code if there is a reason to."""
    if reason:
        click.get_current_context().exit(code)


def code_of(error: BaseException) -> int:
    """Return the exit code of an error."""
    # In the order of CODES: the dict stands from the special to the general.
    return next(
        (code for error_type, code in CODES.items() if isinstance(error, error_type)), FAILED
    )


def _report(error: BaseException) -> int:
    # The engine answers Ctrl-C with an error of its own.
    code = INTERRUPTED if EngineMessage.is_interrupt(error) else code_of(error)
    if os.environ.get("LAKELOG_DEBUG"):
        traceback.print_exception(error)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
    elif code == INTERRUPTED:
        click.echo("lakelog: interrupted", err=True)
    else:
        # It may quote a value of an event, or a name that somebody else chose.
        click.echo(f"lakelog: error: {visible(words_of(error))}", err=True)
    return code


def words_of(error: BaseException) -> str:
    """Return one line that says what is wrong, where, and what to do."""
    if isinstance(error, click.UsageError):
        # click's own hint is for options; ours is for verbs and values, which it does not look at.
        message = EngineMessage(error.format_message()).gist()
        # A word of another tool first: `lakelog checkout` wants `rollback`, not what is spelled
        # alike.
        if hint := _other_words(error, message):
            return hint
        if "did you mean" in message.lower():
            return message
        if hint := _suggestion(error, message):
            return f"{message.rstrip('.')}: {hint}"
        path = error.ctx.command_path if error.ctx else "lakelog"
        return f"{message.rstrip('.')} (see {path} -h)"
    if isinstance(error, click.ClickException):
        return EngineMessage(error.format_message()).gist()
    # Before LakelogError, of which the next two are kinds: their words are made differently.
    if isinstance(error, InvalidEvent):
        return EngineMessage(error.reason).gist()
    if isinstance(error, QueryFailed):
        return EngineMessage(error).explained()
    if isinstance(error, LakelogError):
        return EngineMessage(error).gist()
    if isinstance(error, OSError):
        return _words_of_disk(error)
    if isinstance(error, MemoryError):
        return "not enough memory: take less at once, or lower the setting memory_bytes"
    message = EngineMessage(error).gist() or type(error).__name__
    # Rows are fetched while they are written, so the engine's error may come without a QueryFailed
    # around it.
    if is_engine(error):
        return message
    # So codecs and orjson say of an argument that is no UTF-8; most verbs need not look for it.
    if "surrogates not allowed" in message:
        return "an argument is not valid Unicode: write it in UTF-8"
    # Modules load when they are first used: after an upgrade the new ones meet those of before.
    if _is_replaced():
        cause = f"{type(error).__name__}: {message}"
        return f"lakelog was replaced while this ran: start it again ({cause})"
    # What nobody foresaw is a fault of ours: the class and the way to a traceback belong into a
    # report.
    return f"{type(error).__name__}: {message}; LAKELOG_DEBUG=1 shows where"


def _is_replaced() -> bool:
    """Whether files of modules that this process has loaded were replaced or removed since."""
    modules = [module for name, module in sys.modules.items() if name.startswith("lakelog.")]
    for path in filter(None, (getattr(module, "__file__", None) for module in modules)):
        try:
            # Not its mtime, which an installer may take from the package.
            if os.stat(path).st_ctime_ns > _LOADED_NS:
                return True
        except FileNotFoundError:
            return True
        except NotADirectoryError:  # in a zip file
            continue
    return False


def _other_words(error: click.UsageError, message: str) -> str:
    """Return a line that names the verb for a word of another tool, or what to do instead of an
    option."""
    name = error.ctx.info_name if error.ctx else None
    verb = _NO_VERB.search(message)
    if verb and name == "lakelog" and (replacement := hints()["verbs"].get(verb[1].lower())):
        return f"there is no verb {verb[1]!r}: use lakelog {replacement}"
    option = _NO_OPTION.search(message)
    hint = hints()["options"].get(name, {}).get(option[1]) if option else None
    return f"{name} has no {option[1]}: {hint}" if option and hint else ""


def _suggestion(error: click.UsageError, message: str) -> str:
    """Return `did you mean ...?` for a mistyped verb or value of an option, and how to search for
    what is taken for options."""
    context = error.ctx
    if context is not None and context.info_name == "search" and _NO_LETTER.search(message):
        return "a search that begins with - stands last, behind --: lakelog search -- '-word'"
    if context is not None and (verb := _NO_VERB.search(message)):
        group = context.command
        names = group.list_commands(context) if isinstance(group, click.Group) else ()
        return did_you_mean(verb[1], names)
    value = _NO_CHOICE.search(message)
    return did_you_mean(value[1], _QUOTED.findall(value[2])) if value else ""


def is_engine(error: BaseException) -> bool:
    """Whether the SQL engine or Arrow raised it while rows were fetched."""
    # By sys.modules, so that a verb without a query does not load Arrow to report an error.
    arrow = sys.modules.get("pyarrow")
    is_arrow = arrow is not None and isinstance(error, arrow.ArrowException)
    return is_arrow or EngineMessage.is_engine(error)


def _words_of_disk(error: OSError) -> str:
    path = error.filename2 or error.filename
    if path is None and error.errno == errno.ENOENT and not _has_directory():
        return "the directory that this shell is in was removed: change to another one"
    reason = _DISK_WORDS.get(error.errno or 0) or EngineMessage(error.strerror or str(error)).gist()
    message = f"{os.fsdecode(path)}: {reason}" if isinstance(path, (str, bytes)) else reason
    # What was interrupted by it, and who goes on.
    return "; ".join([message, *getattr(error, "__notes__", [])])


def _has_directory() -> bool:
    """Whether the current directory is still there."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def _drop_stdout() -> None:
    """Discard what is still buffered, so that the interpreter's exit stays quiet."""
    try:
        # CPython flushes stdout at exit and prints a traceback if that fails.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError, AttributeError):
        pass
