"""Errors that a user can cause and mend.

Every message is one sentence that names the file, field or value at fault and the remedy. Tools print that sentence and
exit with status 2; a library caller gets an ordinary ``ValueError`` or ``FileNotFoundError``.
"""

import re
import sys
from collections.abc import Callable


class InputError(ValueError):
    """A file, field or value given by the user cannot be used; the message says which and what to do."""


class MissingFileError(InputError, FileNotFoundError):
    """A file or folder named by the user does not exist; the message names it and says what to do."""

    def __str__(self) -> str:
        return ValueError.__str__(self)


# What mmengine's builder puts before the message of a constructor that failed: "class `BEiT` in mmseg_beit/.../beit.py:
# ".
_BUILDER_PREFIX = re.compile(r'^(?:class `\w+` in [\w./\\-]+\.py: )+')
# What torch puts before the message of an error that was raised in a data loader's worker process.
_WORKER_PREFIX = re.compile(r'^Caught (\w+) in .*?Original Traceback.*?\n(?:[\w.]*\.)?\1: ', re.DOTALL)


def sentence(error: BaseException) -> str:
    """The user's sentence of an error, without what builders and data loader workers wrapped around it.

    Args:
        error: Any exception; usually an :class:`InputError`.

    Returns:
        The message on one line.
    """
    text = str(error).strip()
    if match := _WORKER_PREFIX.match(text):
        text = text[match.end() :]
    text = _BUILDER_PREFIX.sub('', text)
    return ' '.join(text.split())


def run_tool(main: Callable[[], int | None]) -> None:
    """Runs a command-line tool: a user's mistake ends in one sentence on stderr and status 2, Ctrl-C in status 130.

    Args:
        main: The tool's entry point; returns its exit status, ``None`` for success.
    """
    try:
        status = main()
    except InputError as error:
        print(f'error: {sentence(error)}', file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        status = 130
    sys.exit(status or 0)
