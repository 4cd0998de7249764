"""Runs where a test wants to know what can be reached: ``probe.py SECONDS HOST:PORT...`` prints what took a connection.

Imports nothing but the standard library, as it runs in foreign containers and network namespaces.
"""

import concurrent.futures
import socket
import sys


def reached(target: str, seconds: float) -> bool:
    """Whether ``HOST:PORT`` takes a connection. A name that does not resolve does not."""
    host, _, port = target.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=seconds).close()
    except OSError:
        return False
    return True


def main() -> None:
    """Print each target that was reached on a line of its own."""
    seconds, targets = float(sys.argv[1]), sys.argv[2:]
    with concurrent.futures.ThreadPoolExecutor(len(targets)) as pool:
        answers = {target: pool.submit(reached, target, seconds) for target in targets}
    print(*[target for target, answer in answers.items() if answer.result()], sep="\n")


if __name__ == "__main__":
    main()
