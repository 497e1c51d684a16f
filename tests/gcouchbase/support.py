"""Parts for tests of the gevent driver: each test runs in its own thread with its own hub.

So the reactor of the process that runs the tests is left alone, and nothing is patched.
"""

import sys
import threading
from contextlib import ExitStack
from unittest import mock

import gevent

from couchbase.result import AsyncResult
from gcouchbase import GConnection, GView

SECONDS = 60
_TYPES = {"Connection": GConnection, "MultiResult": AsyncResult, "View": GView}


class InGreenlets:
    """Mixin that runs a test case in a thread with a hub, and has its connections be GConnections.

    Tests of the blocking connection become tests of this one by it.
    """

    def run(self, result=None):
        """Run the test in a thread, which must end."""
        thread = threading.Thread(target=self._run_in_hub, args=(result,), daemon=True)
        thread.start()
        thread.join(SECONDS)
        if thread.is_alive():
            frame = sys._current_frames().get(thread.ident)
            raise RuntimeError(f"{self.id()} does not end; it is at {frame}")
        return result

    def _run_in_hub(self, result):
        try:
            # The module in which the test is written, whichever class inherits it.
            for cls in type(self).__mro__:
                module = sys.modules[cls.__module__]
                if ".test_connection_" in cls.__module__:
                    with ExitStack() as stack:
                        for name in _TYPES:
                            if hasattr(module, name):
                                stack.enter_context(mock.patch.object(module, name, _TYPES[name]))
                        super().run(result)
                    return
            super().run(result)
        finally:
            gevent.get_hub().destroy(destroy_loop=True)

    def connect(self, *args, **keywords):
        """Return a GConnection that is closed after the test."""
        if args or not hasattr(self, "node"):
            return super().connect(*args, **keywords)
        try:
            return super().connect(GConnection, **keywords)
        except TypeError:
            return super().connect(**keywords)
