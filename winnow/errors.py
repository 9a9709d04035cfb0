"""The one exception that means: the user can mend this."""


class UserError(ValueError):
    """A mistake in a file, a setting or a command; the message names the thing, the place and the mend.

    The command line prints it as one sentence and exits with code 2; nothing has been written.
    """
