"""The one exception that a user is meant to read. Everything else is a defect and keeps its traceback."""


class UserError(Exception):
    """Bad input or a bad setting: the message says what was given, what is allowed and what to do next."""
