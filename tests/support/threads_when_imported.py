"""A module that starts a thread when it is imported, as some libraries do: nothing to fork a process with."""

import threading
import time

from tests.support.isolation_faults import Dot

threading.Thread(target=time.sleep, args=(10**6,), daemon=True).start()


class Threaded(Dot):
    """Found under the suite's name."""
