"""Something that is done at times beside other work."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeated(action: Callable[[], object], every_s: float) -> Iterator[None]:
    """Do something at times in another thread, while the block runs."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(every_s):
            action()

    thread = threading.Thread(target=work, name="repeated", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
