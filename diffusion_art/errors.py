"""The one exception type for mistakes that the person at the keyboard can put right."""


class UserError(Exception):
    """What happened, with the value, and what helps: one or two plain sentences.

    Commands print it as `error: ...` and exit with status 1, without a traceback. Raise it for bad input
    (a missing folder, a truncated tar, a checkpoint of another format), never for a bug of ours.
    """
