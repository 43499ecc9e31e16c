"""The programs that a machine needs before anything runs on it.

Standard library only: set-up imports it before there is an environment.
"""

import os

SEARCH_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"  # where Debian puts nginx

# program → Debian package
SYSTEM_PROGRAMS = {"nginx": "nginx-light", "bwrap": "bubblewrap", "curl": "curl"}
