"""Every bound on the wire, in one place, each with the reason for its value.

A limit is checked before the thing it bounds is built: the header before the body, the announced length of a list
before the list.
"""

FRAME_BYTES_MAX = 8 * 1024 * 1024
"""One frame. 32 rows of 4,096 slots are 1 MiB; a DEBUG table of 10,000 layers x 8 numbers is 640 kB."""

BODY_STR_BYTES_MAX = 64 * 1024
"""One string: a traceback of 400 lines is about 40 kB; longer ones are cut by the agent."""

BODY_BIN_BYTES_MAX = 6 * 1024 * 1024
"""One binary field: 32 rows of 4,096 columns of the widest kind are 5 MiB. Artifacts travel in chunks of 256 KiB."""

BODY_ITEMS_MAX = 8192
"""Items of one list or map: the columns of a schema with per-head subjects stay far below."""

CONFIG_BYTES_MAX = 64 * 1024
"""Packed `config` of HELLO: an argparse namespace is about 2 kB."""

COLUMNS_MAX = 4096
"""Columns of one schema."""

NAME_CHARS_MAX = 128
"""A column, signal, head or layer name."""

TAGS_MAX = 64
"""Tags of one run."""

VERBS_MAX = 256
"""Verbs one trainer declares: each is a function of its own, and all are kept with its session."""

HOST_CHARS_MAX = 256
"""A host name (253 at most), a launch id."""

SESSIONS_OF_PEER_MAX = 16
"""Live sessions of one connection. An agent has one; it may come back with another before the first is known to be over."""

ROWS_PER_MESSAGE_MAX = 256
"""Rows of one SAMPLES message: 4x the throughput of single rows, and nothing beyond it (measured at 256)."""

ROWS_PER_MESSAGE = 32
"""Rows the sender puts into one message: about 20 kB, under 1 ms of daemon time, so control is never stuck behind data."""

SEND_INTERVAL_S = 0.02
"""How long the sender lets rows gather. Below the 20 ms visibility budget at p50; a wake-up costs about 25 us."""

WINDOW_RECORDS = 4096
"""Records in flight without an ack: 10 s of a trainer doing 400 updates a second."""

WINDOW_BYTES = 8 * 1024 * 1024
"""Bytes in flight without an ack: half of what the outbox holds, so that there is room for what is new."""

OUTBOX_BYTES = 16 * 1024 * 1024
"""Bytes the agent holds for an absent daemon: about 15,000 updates of 80 slots, 400 B of bookkeeping each included."""

OUTBOX_RESERVE_BYTES = 2 * 1024 * 1024
"""On top, for evidence and results only: a full queue of rows must not push out the last words of a dying run."""

SPOOL_BYTES = 256 * 1024 * 1024
"""Of one session's spool on a disk: about 300,000 updates of 80 slots, or four times as many thinned."""

SPOOL_ROOT_BYTES = 1024 * 1024 * 1024
"""Of all sessions in one spool: four full ones. Beyond it the oldest keep of their records only that they are lost."""

SPOOL_SESSIONS_MAX = 1000
"""Sessions in one spool: a trainer restarted every ten seconds makes so many in three hours, and each start looks at all."""

SPOOL_AGE_S = 30 * 86_400.0
"""A session that no daemon took for a month is deleted."""

SPOOL_SEGMENT_BYTES = 256 * 1024
"""One segment, about 300 updates: thinning it takes 5 ms of the trainer's interpreter."""

SPOOL_AFTER_S = 1.0
"""Time without an ack, or without a daemon, after which the link thread writes to the spool what it holds."""

SPOOL_BOX_S = 5.0
"""How often a session whose spool holds records writes its black box there: 1 MiB at most, in the place of the last."""

SPOOL_FIRST_S = 10.0
"""How long a spool of an earlier attempt may go ahead of the new session, once a daemon takes it."""

LOSSES_PENDING_MAX = 256
"""Distinct loss ranges held at once; beyond it neighbours are joined, which over-states and never hides a loss."""

HEARTBEAT_S = 2.0
"""Idle time after which PING is sent."""

HEARTBEATS_MISSED_MAX = 3
"""Silent heartbeats after which the peer counts as gone (zguide: 3 to 5)."""

CLOSE_S = 1.0
"""Longest time `close()` waits for acks. A trainer that ends must end."""

TRACEBACK_CHARS_MAX = 16 * 1024
"""Of an exception: the head and the tail are kept."""

EPISODES_PER_UPDATE_MAX = 256
"""Raw episode returns in one TABLE; the moments cover all of them."""

ESCALATIONS_ACTIVE_MAX = 64
"""Open escalations of one run. Above it the request is refused, not queued."""

SILENCES_ACTIVE_MAX = 256
"""Silences at once: each anomaly that changes is compared with all of them, which costs about 30 us."""

SILENCE_S_MAX = 366 * 86_400
"""Longest silence; what shall never be delivered belongs into the configuration."""

UPDATE_MAX = 2**63 - 1
"""The largest number of an update, as rows, messages and the store hold it."""

NOTE_CHARS_MAX = 500
"""What a person says of an anomaly or a silence."""

ARTIFACT_CHUNK_BYTES = 256 * 1024
"""One ARTIFACT: an eighth of the reserve that it shares with results and events."""

ARTIFACT_BYTES_MAX = 64 * 1024 * 1024
"""One file of a command, packed: a trace of 3 updates has a few MB. It is recorded, packed and sent beside the training."""

ARTIFACTS_BYTES_MAX = 2 * 1024 * 1024 * 1024
"""All files the daemon keeps; beyond it the oldest goes."""

PROFILE_UPDATES_MAX = 100
"""Updates of one trace: each has some MB before it is packed."""

COMMANDS_OPEN_MAX = 16
"""Open commands of one run, one for each verb: a trainer has a handful of verbs, and none is asked for twice at once."""

COMMAND_ARGS_MAX = 32
"""Arguments of one command."""

CONTROL_EXPIRES_S = 86_400.0
"""Seconds after which an escalation or a command that was never begun expires: longer than any update, and a command that
comes the next day is no longer what somebody meant."""

CONTROL_EXPIRES_S_MAX = 30 * 86_400.0
"""The longest that may be asked for."""

ESCALATION_UPDATES_MAX = 1_000_000
"""Longest escalation; an operator who wants a level for good changes the base."""

PROTOCOL_ERRORS_MAX = 8
"""Bad frames that one peer may send in a short time before it is quarantined (one is forgiven every 10 s)."""

QUARANTINE_S = 60.0
"""How long a quarantined peer is ignored."""

LOSS_RECORDS_MAX = 1 << 32
"""Records one LOSS or BYE may declare lost: 13 years of ten updates a second. More is a broken sender, not a loss."""

USER_KEYS_MAX = 256
"""Distinct `log` keys of one run; further ones are counted and reported, not sent."""
