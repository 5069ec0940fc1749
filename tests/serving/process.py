"""`unipetl serve` in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time


class Running:
    """A server on a free port of this machine; its log is read as it comes."""

    def __init__(self, *arguments):
        command = [sys.executable, "-m", "unipetl", "serve", *map(str, arguments), "--port", "0", "--json-log"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ})
        self.lines = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stderr:
            self.lines.append(line)

    def url(self, seconds=240):
        """Wait until it listens, and return where."""
        limit = time.monotonic() + seconds
        while time.monotonic() < limit and self.process.poll() is None:
            for line in list(self.lines):
                if "serving" in line and "http://" in line:
                    return json.loads(line)["message"].rpartition(" on ")[2]
            time.sleep(0.05)
        raise AssertionError(f"it does not listen (exit {self.process.poll()}):\n{''.join(self.lines)}")

    def end(self, seconds=60):
        """Wait for its end, and return its exit code."""
        code = self.process.wait(seconds)
        self._reader.join(5)
        return code

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join(5)
        self.process.stderr.close()
