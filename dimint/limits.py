"""Every bound of the system, in one place, with the unit in its name. [S]

A limit here is a promise: what is larger is refused at the door with a named error, before anything is stored.
"""

# --- keys and values -----------------------------------------------------------------------------------------------
KEY_MAX_BYTES = 511
"""Longest key in UTF-8 bytes: LMDB's own limit with its default page size."""
VALUE_MAX_BYTES = 1 << 20
"""Largest encoded value (JSON text or msgpack bytes)."""
VALUE_MAX_DEPTH = 128
"""Deepest nesting of arrays and maps in a value."""
INTEGER_MAX_DIGITS = 1000
"""Longest integer that `incr` adds to: arithmetic on hostile integers must stay cheap."""
TTL_MAX_MS = 10 * 365 * 24 * 3600 * 1000
CLIENT_ID_MAX_BYTES = 64
SEQ_MAX = (1 << 53) - 1
"""Largest request number: what every JSON implementation can carry exactly."""

# --- requests ------------------------------------------------------------------------------------------------------
REQUEST_MAX_BYTES = 8 << 20
"""Largest client frame; ZMQ drops the connection of whoever sends more."""
REQUEST_MAX_KEYS = 10_000
"""Most keys in one mget or mset."""
SCAN_MAX_ITEMS = 1_000
"""Most items in one page of a scan."""
SCAN_MAX_BYTES = 4 << 20
PUBLISH_MAX_EVENTS = 1_000
REQUESTS_IN_FLIGHT_MAX = 100_000
"""Requests an overlord holds at once; more get DIMINT_BUSY."""
REQUEST_BYTES_IN_FLIGHT_MAX = 256 << 20
CLIENT_CALLS_MAX = 50_000
"""Calls that one client of the library has under way at once; more get Busy before anything is sent."""
REPLIES_QUEUED_MAX = 10_000
"""Replies queued to one connection that does not read; more are dropped with the connection's queue."""
WATCHES_MAX = 10_000
"""Requests for changes that wait at a node at once."""
WATCH_REPLY_BYTES = 1 << 20
"""An answer with changes is closed when their keys and values pass this size."""
PAST_REPLY_BYTES = 1 << 20
"""A page of the past is closed when its keys and values pass this size."""
PAST_ASKED_MAX = 1_000
"""Questions for the past that one overlord has under way at once; more get DIMINT_BUSY."""
WATCH_QUEUE_MAX = 10_000
"""Changes that wait in a client of the library; it asks for no more before some are taken."""
WATCH_RECENT_BYTES = 4 << 20
"""Changes of a watched partition that a node keeps in memory; older ones are read from the log."""
READ_WAIT_MAX_MS = 30_000
"""Longest a read waits for a position."""
WEAK_WAIT_MS = 100
"""Longest a weak read waits for what this overlord acknowledged last."""

# --- log -----------------------------------------------------------------------------------------------------------
BATCH_TARGET_BYTES = 512 << 10
"""A batch is closed when its events pass this size."""
BATCH_MAX_EVENTS = 20_000
RECORD_MAX_BYTES = 4 << 20
"""Largest log record (one batch, framed). Brokers must accept a little more."""
ORIGIN_MAX_BYTES = 512
"""Room that a new record leaves for what a copy of it adds: its log time and where it was."""
EVENTS_MAX_BYTES = 16 << 20
"""Most bytes of events after decompression: a bomb is refused before it is inflated."""
WRITER_KEEP_S = 24 * 3600
"""Log time after which a writer's or client's dedupe row is forgotten."""
OUTCOME_WINDOW = 256
"""Stored outcomes per (partition, client)."""
OUTCOME_KEEP_BATCHES = 10_000
"""Batches per partition whose outcomes can be looked up by event id."""
CHANGES_KEEP_BYTES = 16 << 20
"""Rows a partition keeps of what its records changed, 3 to 40 bytes a change: how far back a watch can begin."""
PARTITIONS_MAX = 1024
READERS_MAX = 200
READER_NAME_MAX_CHARS = 100
HASH_RANGE_MAX = 1 << 20

# --- archives ------------------------------------------------------------------------------------------------------
FRAME_TARGET_BYTES = 1 << 20
"""A frame of an archive is closed when its batches pass this size."""
FRAME_MAX_BYTES = 16 << 20
"""Largest frame, packed or not: more is refused before it is read or inflated."""

# --- snapshots -----------------------------------------------------------------------------------------------------
SNAPSHOT_FRAME_MAX_BYTES = 8 << 20
"""Largest frame of a snapshot before compression: some rows, or one large one. A bomb is refused before it is inflated."""
SNAPSHOT_PART_MAX_BYTES = 512 << 10
"""Most bytes of a snapshot that one node asks another for at once."""
SNAPSHOTS_MAX = 4
"""Snapshots that a node keeps ready for others at once; who comes then waits."""

# --- status --------------------------------------------------------------------------------------------------------
SAMPLE_MAX_BYTES = 512 << 10
EVENT_FIELDS_MAX_BYTES = 16 << 10
"""Packed fields of an event that the status tables show on a host's event lane; larger ones are counted and left out."""
HOST_NAME_MAX_CHARS = 255
PROCESS_NAME_MAX_CHARS = 256
GPUS_MAX = 256
"""GPUs (with MIG instances) of one host."""
PROCESSES_MAX = 4096
"""GPU processes of one sample; a driver bug reports millions (see docs of the agent)."""
TAGS_MAX = 64
"""Tags of one host that are shown and can be asked for."""
FILTER_MAX_CHARS = 1000
"""Longest filter of a page."""
FETCH_MAX_SAMPLES = 10_000
EVENTS_FETCH_MAX = 10_000
"""Events of hosts that one look gives."""
HTTP_BODY_MAX_BYTES = 1 << 20
REPORTS_QUEUED_MAX = 10_000
"""Posts of HTTP senders that wait for the log in one web app; more are told to try again."""
REPORT_BYTES_QUEUED_MAX = 64 << 20
SENDERS_NEW_MAX = 10_000
"""Hosts that registered over HTTP and are not in the status tables yet."""
HTTP_HOSTS_MAX = 20_000
"""With this many hosts known, no more can register over HTTP, where a loop of a broken sender makes one after the other."""

# --- the bounds fit each other -------------------------------------------------------------------------------------
assert BATCH_TARGET_BYTES + VALUE_MAX_BYTES + (64 << 10) + ORIGIN_MAX_BYTES < RECORD_MAX_BYTES
assert 2 * (PAST_REPLY_BYTES + 2 * VALUE_MAX_BYTES) < REQUEST_MAX_BYTES, "a difference has two values, in base64 at worst"
assert 2 * VALUE_MAX_BYTES < RECORD_MAX_BYTES < SNAPSHOT_FRAME_MAX_BYTES
assert RECORD_MAX_BYTES < REQUEST_MAX_BYTES < EVENTS_MAX_BYTES
assert FRAME_TARGET_BYTES + 2 * RECORD_MAX_BYTES < FRAME_MAX_BYTES
assert OUTCOME_WINDOW == 256, "the outcome ring is indexed by one byte"
assert CLIENT_CALLS_MAX < REQUESTS_IN_FLIGHT_MAX
assert SAMPLE_MAX_BYTES < RECORD_MAX_BYTES
