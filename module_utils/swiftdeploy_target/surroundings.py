"""What a module finds around it, brought to what it expects: the umask, and what docker, pip and Python read."""

from __future__ import annotations

import os
import re

# Not what says where an engine, a registry, a proxy or an index is: that is the user's to choose. These would have a
# program read another project, another platform's image, or packages from elsewhere.
FOREIGN = re.compile(
    r"COMPOSE_|DOCKER_DEFAULT_PLATFORM$"
    r"|PYTHON(HOME|PATH|USERBASE|STARTUP|WARNINGS|SAFEPATH|OPTIMIZE|INSPECT|UTF8)$|__PYVENV_LAUNCHER__$|VIRTUAL_ENV$"
    r"|PIP_(USER|TARGET|PREFIX|ROOT|REQUIRE_VIRTUALENV|PYTHON|DRY_RUN|NO_DEPS|ONLY_BINARY|NO_BINARY)$"
    r"|BASH_ENV$|ENV$|CDPATH$"
)


def clear_surroundings() -> None:
    """Forget what is not meant for the stack, and let what is written be read by all unless it is given a mode.

    Containers read it as users of their own; the umask of whoever runs this must not keep them from it.
    """
    os.umask(0o022)
    for name in [name for name in os.environ if FOREIGN.match(name)]:
        del os.environ[name]
