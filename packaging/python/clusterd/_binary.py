"""Where the binary is that came with the package."""

from __future__ import annotations

import os
import sys
import sysconfig


def find_binary() -> str:
    """The path of the clusterd binary that came with this package. FileNotFoundError where it is missing."""
    name = "clusterd"
    folders = [sysconfig.get_path("scripts"), os.path.dirname(sys.executable)]
    if sys.version_info >= (3, 10):
        folders.append(sysconfig.get_path("scripts", sysconfig.get_preferred_scheme("user")))
    # pip install --target
    folders.append(os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "bin"))
    for folder in folders:
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            return path
    raise FileNotFoundError("clusterd is not in " + ", ".join(folders))
