"""The tables of `gradwatch.db`, their numbered migrations, and how a row's place becomes its key.

Tails, chunks and pieces are clustered by an integer key computed from where they belong, so reading one stream, or one
signal of it, is one walk over neighbouring pages, and no second index has to be kept in the committing transaction.
"""

from __future__ import annotations

CHUNK_ROWS = 1024
"""Rows of one chunk: the row with ordinal r of a stream lies in chunk r // 1024. 4 KiB of f32 for each signal."""

_STREAM_SHIFT = 45
_SIGNAL_SHIFT = 23
_LOW_ROW = (1 << _STREAM_SHIFT) - 1
_LOW_CHUNK = (1 << _SIGNAL_SHIFT) - 1


def row_key(stream: int, ordinal: int) -> int:
    """Key of a tail that starts at row `ordinal` of a stream, or of a chunk by its number. Both below 2**45."""
    return stream << _STREAM_SHIFT | ordinal


def row_of(key: int) -> int:
    """The ordinal or chunk number in a `row_key`."""
    return key & _LOW_ROW


def stream_of(key: int) -> int:
    """The stream in a `row_key`."""
    return key >> _STREAM_SHIFT


def piece_key(stream: int, signal: int, chunk: int) -> int:
    """Key of one signal in one chunk: 18 bits of stream, 22 of signal, 23 of chunk (8.6e9 updates of one stream)."""
    return stream << _STREAM_SHIFT | signal << _SIGNAL_SHIFT | chunk


def chunk_of(key: int) -> int:
    """The chunk number in a `piece_key`."""
    return key & _LOW_CHUNK


def upsert(table: str, columns: tuple[str, ...], keys: int) -> str:
    """SQL that inserts a row or replaces the one with the same first `keys` columns."""
    listed = ", ".join(columns)
    marks = ", ".join("?" * len(columns))
    changed = ", ".join(f"{name} = excluded.{name}" for name in columns[keys:])
    return f"INSERT INTO {table} ({listed}) VALUES ({marks}) ON CONFLICT ({', '.join(columns[:keys])}) DO UPDATE SET {changed}"


_FIRST = (
    # Streams, signals and ordered sets of signals: written once, referred to by number.
    """CREATE TABLE stream (id INTEGER PRIMARY KEY CHECK (id < 262144), run TEXT NOT NULL, attempt INTEGER NOT NULL,
        rank INTEGER NOT NULL, UNIQUE (run, attempt, rank))""",
    """CREATE TABLE signal (id INTEGER PRIMARY KEY CHECK (id < 4194304), name TEXT NOT NULL, subject TEXT NOT NULL,
        UNIQUE (name, subject))""",
    "CREATE TABLE signal_set (id INTEGER PRIMARY KEY, members BLOB NOT NULL UNIQUE)",
    # Rows as committed; `chunks/tail.py` has the layout of `data`. The blob comes last, so scans do not touch it.
    """CREATE TABLE tail (id INTEGER PRIMARY KEY, set_id INTEGER NOT NULL, n INTEGER NOT NULL, update_min INTEGER NOT NULL,
        update_max INTEGER NOT NULL, data BLOB NOT NULL)""",
    # 1,024 rows: what all signals share in `chunk` and `chunk_columns`, one `piece` for each signal. `marks` and `groups`
    # are the x64 roll-ups. They lie dense: the full columns apart, and `data` behind `groups`, so that it goes to overflow
    # pages. A scan of the roll-ups of 1 M updates then reads 220 pages instead of 2,000.
    """CREATE TABLE chunk (id INTEGER PRIMARY KEY, update_min INTEGER NOT NULL, update_max INTEGER NOT NULL,
        sets BLOB NOT NULL, marks BLOB NOT NULL)""",
    "CREATE TABLE chunk_columns (id INTEGER PRIMARY KEY, data BLOB NOT NULL)",
    "CREATE TABLE piece (id INTEGER PRIMARY KEY, groups BLOB NOT NULL, reasons BLOB, status BLOB, data BLOB)",
    # Each signal over the chunked rows of a stream.
    """CREATE TABLE summary (stream INTEGER NOT NULL REFERENCES stream, signal INTEGER NOT NULL REFERENCES signal,
        update_last INTEGER NOT NULL, status_last INTEGER NOT NULL, value_last BLOB, measured INTEGER NOT NULL,
        nonfinite INTEGER NOT NULL, PRIMARY KEY (stream, signal)) WITHOUT ROWID""",
    """CREATE TABLE run (run TEXT PRIMARY KEY, attempt INTEGER NOT NULL, launch_id TEXT NOT NULL, run_group TEXT NOT NULL,
        tags TEXT NOT NULL, labels TEXT NOT NULL, config TEXT NOT NULL, updates_total INTEGER, world INTEGER NOT NULL,
        state TEXT NOT NULL, base INTEGER NOT NULL, pin INTEGER, revision INTEGER NOT NULL, first_seen_ns INTEGER NOT NULL,
        last_seen_ns INTEGER NOT NULL)""",
    """CREATE TABLE session (session TEXT PRIMARY KEY, stream INTEGER NOT NULL REFERENCES stream, launch_id TEXT NOT NULL,
        last_seq NOT NULL, host TEXT NOT NULL, pid INTEGER NOT NULL, verbs TEXT NOT NULL)""",
    # Columns without a type may hold a number or, where SQLite has none for it, a text (see rows.py).
    """CREATE TABLE anomaly (id TEXT PRIMARY KEY, run TEXT NOT NULL, attempt INTEGER NOT NULL, rank INTEGER NOT NULL,
        kind TEXT NOT NULL, subject TEXT NOT NULL, severity TEXT NOT NULL, state TEXT NOT NULL, update_onset INTEGER NOT NULL,
        update_fired INTEGER NOT NULL, update_last INTEGER NOT NULL, update_resolved INTEGER, count INTEGER NOT NULL,
        value NOT NULL, limit_value NOT NULL, baseline, minibatch INTEGER NOT NULL, stage TEXT NOT NULL, sentence TEXT NOT NULL,
        attached TEXT NOT NULL, tries TEXT NOT NULL, rules_hash TEXT NOT NULL, t_ns INTEGER NOT NULL)""",
    "CREATE INDEX anomaly_newest ON anomaly (t_ns, id)",
    "CREATE INDEX anomaly_newest_of_run ON anomaly (run, t_ns, id)",
    "CREATE INDEX anomaly_open ON anomaly (t_ns, id) WHERE state <> 'resolved'",
    """CREATE TABLE escalation (run TEXT NOT NULL, id TEXT NOT NULL, level INTEGER NOT NULL, updates INTEGER NOT NULL,
        origin TEXT NOT NULL, reason TEXT NOT NULL, state TEXT NOT NULL, requested_ns INTEGER NOT NULL, update_applied INTEGER,
        update_ended INTEGER, ended_why TEXT NOT NULL, PRIMARY KEY (run, id))""",
    "CREATE INDEX escalation_newest ON escalation (run, requested_ns)",
    """CREATE TABLE event (id INTEGER PRIMARY KEY, stream INTEGER NOT NULL REFERENCES stream, session TEXT NOT NULL,
        seq NOT NULL, update_at INTEGER NOT NULL, t_ns INTEGER NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL,
        detail TEXT NOT NULL)""",
    "CREATE UNIQUE INDEX event_once ON event (session, seq) WHERE seq >= 0",
    "CREATE INDEX event_of_stream ON event (stream)",
    """CREATE TABLE loss (id INTEGER PRIMARY KEY, stream INTEGER NOT NULL REFERENCES stream, session TEXT NOT NULL,
        first_seq NOT NULL, last_seq NOT NULL, reason TEXT NOT NULL, UNIQUE (session, first_seq, last_seq))""",
    "CREATE INDEX loss_of_stream ON loss (stream)",
    """CREATE TABLE evidence (id INTEGER PRIMARY KEY, stream INTEGER NOT NULL REFERENCES stream, session TEXT NOT NULL,
        seq NOT NULL, kind TEXT NOT NULL, update_at INTEGER NOT NULL, row_index TEXT NOT NULL, names TEXT NOT NULL,
        data BLOB NOT NULL)""",
    "CREATE UNIQUE INDEX evidence_once ON evidence (session, seq) WHERE seq >= 0",
    "CREATE INDEX evidence_of_stream ON evidence (stream)",
    """CREATE TABLE checkpoint (stream INTEGER PRIMARY KEY REFERENCES stream, update_at INTEGER NOT NULL, rows INTEGER NOT NULL,
        rules_hash TEXT NOT NULL, state BLOB NOT NULL)""",
)

_SECOND = (
    # Rows of ranks that wait for each other, as the daemon holds them: what was acked is not forgotten by a restart.
    "CREATE TABLE waiting (stream INTEGER PRIMARY KEY REFERENCES stream, data BLOB NOT NULL)",
)

_THIRD = (
    # Tables of one kind by update, for GET layers; episodes may be as many as there are updates.
    "CREATE INDEX evidence_of_kind ON evidence (stream, kind, update_at)",
    "DROP INDEX evidence_of_stream",
)

_FOURTH = (
    # What people did about anomalies, apart from them: detection writes the one table, people the other.
    """CREATE TABLE attention (anomaly TEXT PRIMARY KEY, seen_by TEXT, seen_ns INTEGER, note TEXT, silence TEXT NOT NULL)
        WITHOUT ROWID""",
    """CREATE TABLE silence (id TEXT PRIMARY KEY, run TEXT, kind TEXT, subject TEXT, reason TEXT NOT NULL, author TEXT NOT NULL,
        created_ns INTEGER NOT NULL, expires_ns INTEGER NOT NULL, ended_ns INTEGER, muted INTEGER NOT NULL)""",
)

_FIFTH = (
    # Not by id alone, as escalations: clients make the ids. `ranks` is JSON, a list for each rank that was asked.
    """CREATE TABLE command (run TEXT NOT NULL, id TEXT NOT NULL, verb TEXT NOT NULL, args TEXT NOT NULL, origin TEXT NOT NULL,
        reason TEXT NOT NULL, state TEXT NOT NULL, requested_ns INTEGER NOT NULL, expires_ns INTEGER NOT NULL, rank INTEGER,
        not_before INTEGER NOT NULL, update_applied INTEGER, update_ended INTEGER, ended_why TEXT NOT NULL,
        ranks TEXT NOT NULL, PRIMARY KEY (run, id))""",
    "CREATE INDEX command_newest ON command (run, requested_ns)",
)

_SIXTH = (
    # 1 where retention took the values of a chunk and left their roll-ups, 2 while it still takes its tables. The index finds
    # the next one to thin.
    "ALTER TABLE chunk ADD COLUMN thinned INTEGER NOT NULL DEFAULT 0",
    "CREATE INDEX chunk_raw ON chunk (id) WHERE thinned = 0",
)

_SEVENTH = (
    # What each rank said of an escalation, as in `command`; 0: it never expires.
    "ALTER TABLE escalation ADD COLUMN ranks TEXT NOT NULL DEFAULT '[]'",
    "ALTER TABLE escalation ADD COLUMN expires_ns INTEGER NOT NULL DEFAULT 0",
)

_EIGHTH = (
    # How we know what became of a run, in words.
    "ALTER TABLE run ADD COLUMN evidence TEXT NOT NULL DEFAULT ''",
)

_NINTH = (
    # The file that came for a command; the bytes lie in the directory, see artifacts.py.
    "ALTER TABLE command ADD COLUMN artifact_name TEXT",
    "ALTER TABLE command ADD COLUMN artifact_bytes INTEGER",
)

_TENTH = (
    # What people were told, and what became of it.
    """CREATE TABLE delivery (id TEXT PRIMARY KEY, channel TEXT NOT NULL, subject TEXT NOT NULL, event TEXT NOT NULL,
        severity TEXT NOT NULL, run TEXT NOT NULL, made_ns INTEGER NOT NULL, body TEXT NOT NULL, state TEXT NOT NULL,
        attempts INTEGER NOT NULL, changed_ns INTEGER NOT NULL, answer TEXT NOT NULL, silence TEXT NOT NULL) WITHOUT ROWID""",
)

_ELEVENTH = (
    # Events of one kind, for what is counted of a whole run; and which deliveries are over, without their bodies.
    "CREATE INDEX event_of_kind ON event (stream, kind)",
    "DROP INDEX event_of_stream",
    "CREATE INDEX delivery_over ON delivery (id) WHERE state <> 'pending'",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    *(_FIRST, _SECOND, _THIRD, _FOURTH, _FIFTH, _SIXTH, _SEVENTH, _EIGHTH, _NINTH, _TENTH),
    _ELEVENTH,
)
"""Statements that take the data from version i to i + 1. Append-only: what was released is never edited."""

VERSION = len(MIGRATIONS)
"""`user_version` of the data this code writes."""

APPLICATION_ID = 0x67726477
"""`grdw`: tells our file from another program's SQLite file."""
