"""User errors, and how they become a message and an exit code."""

import errno
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NoReturn
from urllib.parse import unquote

from clearcall.core.locks import hold_lock
from clearcall.core.processes import end_with_parent

_USERINFO = re.compile(r"(\w://)[^\s/'\"]*@")
_SECRET_IN_QUERY = re.compile(r"([?&][\w-]*(?:pass|secret|token|key)[\w-]*=)[^&\s'\"]+", re.IGNORECASE)
_SHORTEST_SECRET = 4  # characters; shorter ones stand in many words


class UserError(Exception):
    """Something the user can mend; its text says what is wrong and what to do."""


class NothingToLearnError(UserError):
    """Recordings that do not improve a network."""


def redact(text: str) -> str:
    """Return a text without the credentials in its URLs and those of MLflow."""
    # A password that is not percent-encoded may hold any character: the variable's own is looked for as it stands.
    given = os.environ.get("MLFLOW_TRACKING_URI", "").partition("://")[2].rpartition("@")[0]
    if given:
        text = text.replace(f"{given}@", "")
    text = _SECRET_IN_QUERY.sub(r"\1***", _USERINFO.sub(r"\1", text))
    password = given.partition(":")[2]
    token, other = (os.environ.get(f"MLFLOW_TRACKING_{name}", "") for name in ("TOKEN", "PASSWORD"))
    for secret in (password, unquote(password), token, other):
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "***")
    return text


def describe(error: BaseException) -> str | None:
    """Return one message for an error that is not a bug of ours, or None for one that is."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        what = error.filename or "a file"
        return f"no permission to use {what}: check its owner and mode, or choose another folder"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" while writing {error.filename}" if error.filename else ""
        return f"no space left on the disk{where}: free some, or use another disk (stages: `paths` in params.yaml)"
    return None


def fail(message: str) -> NoReturn:
    """Print one message on standard error and end with exit code 1."""
    print(f"error: {redact(message)}", file=sys.stderr)
    sys.exit(1)


def run(main: Callable[[], None]) -> None:
    """Run a program's main function; a user error ends it with a message and code 1.

    SIGTERM ends it as a mistake would: what is half-written is removed. A stage that DVC runs ends with that DVC, and
    waits for one of the same name that an earlier DVC has left.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        # Training processes for further devices work for the one that holds the lock.
        if "DVC_STAGE" in os.environ and "LOCAL_RANK" not in os.environ:
            end_with_parent()
            name = Path(sys.argv[0]).name
            hold_lock(Path(".dvc", "tmp", f"{name}.lock"), f"runs {name} in {Path.cwd()}")
        main()
    except KeyboardInterrupt:
        print("interrupted: run the same command again to go on", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read our output has gone (for example `| head`); point stdout away so that exit flushes quietly.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        message = describe(error)
        if message is None:
            sys.excepthook = _print_traceback
            raise
        fail(message)


def _print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print the traceback of a bug, without the passwords that its messages quote."""
    sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))
