"""The one error that a user can mend: the command line prints it as one line and exits with code 2."""

from __future__ import annotations


class IMAError(ValueError):
    """Raised where a setting, file or combination given by the user cannot be used.

    The message is a single line that names the file or key, what was expected, and what to do.
    """
