"""The exceptions that a user is meant to read. Everything else is a defect and keeps its traceback."""


class UserError(Exception):
    """Bad input or a bad setting: the message says what was given, what is allowed and what to do next."""


class Unreachable(UserError):
    """A download failed. The same call may succeed later, so Dagster tries the stage again."""
