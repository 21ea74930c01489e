"""The one exception type for mistakes that the person at the keyboard can put right."""

import traceback


class UserError(Exception):
    """What happened, with the value, and what helps: one or two plain sentences.

    Commands print it as `error: ...` and exit with status 1, without a traceback. Raise it for bad input
    (a missing folder, a truncated tar, a checkpoint of another format), never for a bug of ours.
    """


def passed_through(error: BaseException) -> list[str]:
    """The names of the modules that an error came through, that which raised it last."""
    return [str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__)]


def raised_in(error: BaseException, *modules: str) -> bool:
    """Whether a module whose name begins so raised it itself."""
    modules_passed = passed_through(error)
    return bool(modules_passed) and modules_passed[-1].startswith(modules)
