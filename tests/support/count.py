"""Sum pytest's JUnit files up in one line, and fail when a test was skipped: count.py FILE..."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from pathlib import Path


def main() -> int:
    """Print ``N passed, N failed, N skipped``; the exit status says whether all ran and passed."""
    tests = failures = skipped = 0
    for name in sys.argv[1:]:
        if not Path(name).is_file():
            print(f"{name} is missing: its tests did not finish")
            failures += 1
            continue
        for suite in ET.parse(name).getroot().iter("testsuite"):
            tests += int(suite.attrib["tests"])
            failures += int(suite.attrib["failures"]) + int(suite.attrib["errors"])
            skipped += int(suite.attrib["skipped"])
    print(f"{tests - failures - skipped} passed, {failures} failed, {skipped} skipped")
    if skipped:
        print("a test that is skipped proves nothing: make it run or remove it")
    return 1 if failures or skipped or not tests else 0


if __name__ == "__main__":
    sys.exit(main())
