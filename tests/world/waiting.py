"""Waiting until a server answers."""

import subprocess
import time
import urllib.request
from pathlib import Path


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(1200):
        assert process.poll() is None, log.read_text()
        try:
            direct.open(url, timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(log.read_text())
