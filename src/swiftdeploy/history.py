"""The history: append-only JSON lines, each chained to the one before by SHA-256.

One line is one event. `append` writes it, `read` and `scan` stream it, `verify` checks the chain, `find` looks for the
record of a run, `Recorder` turns task results into records. See docs/history.md. This module is the front of

- `history_line`: one line, its hash, and whether it is as it was written;
- `history_file`: the files, the lock, the head, closing a file that is full;
- `history_read`: all files in order;
- `history_archive`: moving closed files away;
- `history_journal`: operations that are open, for when a run is killed;
- `history_recorder`: from task results to records.
"""

from __future__ import annotations

from swiftdeploy.history_archive import archive
from swiftdeploy.history_file import MAX_SIZE, append, check_writable
from swiftdeploy.history_journal import Holder, sweep
from swiftdeploy.history_line import (
    CONTROL,
    FIELDS,
    MAX_LINE,
    RESERVED,
    SCHEMA,
    ZERO_HASH,
    HistoryError,
    Record,
    build_record,
    canonical,
    check_event_name,
    default_actor,
    digest,
    encode,
    parse_record,
    plain,
    utc_now,
)
from swiftdeploy.history_read import (
    FIND_BYTES,
    Line,
    VerifyResult,
    find,
    notes_words,
    read,
    scan,
    verify,
    verify_result,
    with_ends,
)
from swiftdeploy.history_recorder import (
    DEFAULT_NAME,
    EVERY,
    Recorder,
    default_path,
    failures,
    listeners,
    outcome_words,
)

__all__ = [
    "CONTROL",
    "DEFAULT_NAME",
    "EVERY",
    "FIELDS",
    "FIND_BYTES",
    "MAX_LINE",
    "MAX_SIZE",
    "RESERVED",
    "SCHEMA",
    "ZERO_HASH",
    "HistoryError",
    "Holder",
    "Line",
    "Record",
    "Recorder",
    "VerifyResult",
    "append",
    "archive",
    "build_record",
    "canonical",
    "check_event_name",
    "check_writable",
    "default_actor",
    "default_path",
    "digest",
    "encode",
    "failures",
    "find",
    "listeners",
    "notes_words",
    "outcome_words",
    "parse_record",
    "plain",
    "read",
    "scan",
    "sweep",
    "utc_now",
    "verify",
    "verify_result",
    "with_ends",
]
