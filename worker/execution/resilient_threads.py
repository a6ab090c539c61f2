"""Background threads of a process: an error in one round costs that round, and not the thread."""

import logging
import threading
import traceback
from collections.abc import Callable
from typing import Final

from batchord.chains.errors import BatchordError

logger = logging.getLogger(__name__)

#: Functions of an unexpected error's traceback that are logged.
_FRAMES: Final = 5


def survives(what: str, body: Callable[[], object]) -> bool:
    """Run one round of a background thread, and return whether it came to its end.

    Whatever it raises is logged: a thread that ends silently takes its duty with it. Our own errors
    are logged with their text, all others by type and place, as their text may quote an input.
    """
    try:
        body()
    except BatchordError as error:
        logger.warning("%s put off: %s", what, error)
    except BaseException as error:
        # SystemExit too: `threading` ends a thread for it without a word. A Ctrl-C is for the main
        # thread alone.
        if isinstance(error, KeyboardInterrupt) and _is_main():
            raise
        logger.error("%s failed: %s in %s", what, type(error).__name__, place_of(error))
    else:
        return True
    return False


def place_of(error: BaseException) -> str:
    """Return the functions and lines that it was raised through, the innermost first."""
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    return " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames)) or "?"


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()
