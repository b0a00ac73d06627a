"""Requests to an app on this machine while something happens to it."""

import threading
import time

from common import get

# What each thread does at most.
REQUESTS_MAX = 50_000
PAUSE_S = 0.002


class Load:
    """Requests, one after the other, from two threads, each on a connection of its own."""

    def __init__(self, port):
        self.port, self.over, self.answered, self.failed = port, False, 0, []
        self.threads = [threading.Thread(target=self.loop) for _ in range(2)]
        for thread in self.threads:
            thread.start()

    def loop(self):
        for _ in range(REQUESTS_MAX):
            if self.over:
                return
            try:
                get(self.port)
                self.answered += 1
            except OSError as error:
                self.failed.append(str(error))
            time.sleep(PAUSE_S)

    def stop(self):
        self.over = True
        for thread in self.threads:
            thread.join()
