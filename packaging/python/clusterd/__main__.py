"""`python -m clusterd`: becomes the binary."""

import os
import sys

from ._binary import find_binary

os.execv(find_binary(), ["clusterd", *sys.argv[1:]])
