"""The one exception type for mistakes that the person at the keyboard can put right, and what others say."""

import traceback


class UserError(Exception):
    """What happened, with the value, and what helps: one or two plain sentences.

    Commands print it as `error: ...` and exit with status 1, without a traceback. Raise it for bad input
    (a missing folder, a truncated tar, a checkpoint of another format), never for a bug of ours.
    """


def first_line(error: BaseException) -> str:
    """What an error says in its first line, to stand in a sentence; the name of its class where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def passed_through(error: BaseException) -> list[str]:
    """The names of the modules that an error came through, that which raised it last."""
    return [str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__)]


def raised_in(error: BaseException, *modules: str) -> bool:
    """Whether a module whose name begins so raised it itself."""
    modules_passed = passed_through(error)
    return bool(modules_passed) and modules_passed[-1].startswith(modules)
