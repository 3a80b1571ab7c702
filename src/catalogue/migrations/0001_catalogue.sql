-- Times are microseconds since 1970, UTC. uid columns are texts of the contract; id columns are ours.

CREATE TABLE cameras (
    id        INTEGER PRIMARY KEY,
    uid       TEXT    NOT NULL UNIQUE,
    namespace TEXT    NOT NULL,
    name      TEXT    NOT NULL,
    site      TEXT    NOT NULL,
    revision  INTEGER NOT NULL,            -- -1: heard of in a segment, not yet told about
    deleted   INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX cameras_by_name ON cameras (namespace, name);

CREATE TABLE streams (
    id         INTEGER PRIMARY KEY,
    uid        TEXT    NOT NULL UNIQUE,
    camera_id  INTEGER NOT NULL REFERENCES cameras (id),
    revision   INTEGER NOT NULL,
    config     TEXT,                       -- StreamConfig as JSON; absent until told
    instance   TEXT,                       -- of config
    deleted    INTEGER NOT NULL DEFAULT 0, -- no longer recorded
    forgotten  INTEGER NOT NULL DEFAULT 0, -- its footage was deleted with its pipeline
    newest_us  INTEGER,                    -- end of the newest segment ever catalogued
    removed_us INTEGER                     -- end of the newest footage that retention removed
) STRICT;
CREATE INDEX streams_by_instance ON streams (instance);

CREATE TABLE sessions (
    id        INTEGER PRIMARY KEY,
    uid       TEXT    NOT NULL,
    stream_id INTEGER NOT NULL REFERENCES streams (id),
    UNIQUE (stream_id, uid)
) STRICT;

-- How far a rendition of a session has come, as counts of its leading sequence numbers.
CREATE TABLE tracks (
    session_id   INTEGER NOT NULL REFERENCES sessions (id),
    rendition    TEXT    NOT NULL,
    stored_next  INTEGER NOT NULL DEFAULT 0, -- every number below is stored, or declared missing
    removed_next INTEGER NOT NULL DEFAULT 0, -- every number below was removed by retention
    PRIMARY KEY (session_id, rendition)
) STRICT, WITHOUT ROWID;

CREATE TABLE inits (
    id     INTEGER PRIMARY KEY,
    cid    TEXT    NOT NULL,
    sha256 TEXT    NOT NULL,
    bytes  INTEGER NOT NULL,
    codecs TEXT    NOT NULL,
    width  INTEGER NOT NULL,
    height INTEGER NOT NULL,
    UNIQUE (cid, codecs, width, height)
) STRICT;

CREATE TABLE rollups (
    id           INTEGER PRIMARY KEY,
    stream_id    INTEGER NOT NULL REFERENCES streams (id),
    window_us    INTEGER NOT NULL,
    part         INTEGER NOT NULL,
    state        TEXT    NOT NULL,          -- committed → built → asking → pinning → stored
    namespace    TEXT    NOT NULL,
    group_name   TEXT    NOT NULL,
    start_us     INTEGER NOT NULL,
    end_us       INTEGER NOT NULL,
    cid          TEXT,
    replicas     INTEGER,                   -- asked for
    allocations  TEXT,                      -- cluster peers asked for, comma-separated
    requested_us INTEGER,                   -- the pin was last asked for
    waiting_us   INTEGER,                   -- the pin is waited for since, or since the last readd
    stored_us    INTEGER,
    expires_us   INTEGER,                   -- expire-at of the pin
    UNIQUE (stream_id, window_us, part)
) STRICT;
CREATE INDEX rollups_by_end ON rollups (stream_id, end_us);
CREATE INDEX rollups_open ON rollups (state) WHERE state <> 'stored';
CREATE INDEX rollups_by_cid ON rollups (cid);

CREATE TABLE segments (
    id                INTEGER PRIMARY KEY,
    session_id        INTEGER NOT NULL REFERENCES sessions (id),
    rendition         TEXT    NOT NULL,
    seq               INTEGER NOT NULL,
    stream_id         INTEGER NOT NULL REFERENCES streams (id),
    camera_id         INTEGER NOT NULL REFERENCES cameras (id),
    start_us          INTEGER NOT NULL,
    end_us            INTEGER NOT NULL,
    media_us          INTEGER NOT NULL,
    bytes             INTEGER NOT NULL,
    sha256            TEXT    NOT NULL,
    cid               TEXT    NOT NULL,
    init_id           INTEGER NOT NULL REFERENCES inits (id),
    file              TEXT    NOT NULL,
    playlist_seq      INTEGER NOT NULL,
    discontinuity_seq INTEGER NOT NULL,
    target_seconds    INTEGER NOT NULL,
    received_us       INTEGER NOT NULL,
    rollup_id         INTEGER REFERENCES rollups (id), -- its roll-up; absent while the window is open
    stored            INTEGER NOT NULL DEFAULT 0,
    UNIQUE (session_id, rendition, seq)
) STRICT;
CREATE INDEX segments_by_time ON segments (camera_id, rendition, start_us);
CREATE INDEX segments_open ON segments (stream_id, start_us) WHERE rollup_id IS NULL;
CREATE INDEX segments_unstored ON segments (stream_id, start_us) WHERE stored = 0;
CREATE INDEX segments_by_rollup ON segments (rollup_id) WHERE rollup_id IS NOT NULL;

CREATE TABLE gaps (
    id         INTEGER PRIMARY KEY,
    session_id INTEGER NOT NULL REFERENCES sessions (id),
    stream_id  INTEGER NOT NULL REFERENCES streams (id),
    camera_id  INTEGER NOT NULL REFERENCES cameras (id),
    seq        INTEGER,                     -- absent: a break before the session
    from_us    INTEGER NOT NULL,
    to_us      INTEGER NOT NULL,
    reason     TEXT    NOT NULL,
    detail     TEXT    NOT NULL
) STRICT;
CREATE UNIQUE INDEX gaps_once ON gaps (session_id, coalesce(seq, -1), from_us);
CREATE INDEX gaps_by_time ON gaps (camera_id, from_us);

-- What is on its way out. Written before anything is unpinned; kept for a while as evidence.
CREATE TABLE tombstones (
    id         INTEGER PRIMARY KEY,
    stream_id  INTEGER NOT NULL REFERENCES streams (id),
    namespace  TEXT    NOT NULL,
    group_name TEXT    NOT NULL,
    cid        TEXT,                        -- absent: it never got one
    reason     TEXT    NOT NULL,            -- Retention | PipelineDeleted
    start_us   INTEGER NOT NULL,
    end_us     INTEGER NOT NULL,
    at_us      INTEGER NOT NULL,
    asked_us   INTEGER,                     -- the unpin was last asked for
    done_us    INTEGER                      -- seen to be gone
) STRICT;
CREATE INDEX tombstones_open ON tombstones (id) WHERE done_us IS NULL;
CREATE INDEX tombstones_done ON tombstones (done_us) WHERE done_us IS NOT NULL;

CREATE TABLE instances (
    uid     TEXT    PRIMARY KEY,
    at_us   INTEGER NOT NULL,               -- issuedAt of the newest report
    phase   TEXT    NOT NULL,
    session TEXT,
    problem TEXT                            -- Problem as JSON
) STRICT;

CREATE TABLE outbox (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    exchange TEXT NOT NULL,
    key      TEXT NOT NULL,
    body     TEXT NOT NULL
) STRICT;

CREATE TABLE ledger (
    id        INTEGER PRIMARY KEY,
    at_us     INTEGER NOT NULL,
    kind      TEXT    NOT NULL,
    body      TEXT    NOT NULL,
    prev_hash TEXT    NOT NULL,
    hash      TEXT    NOT NULL
) STRICT;
CREATE TRIGGER ledger_is_append_only_update BEFORE UPDATE ON ledger BEGIN SELECT raise(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER ledger_is_append_only_delete BEFORE DELETE ON ledger BEGIN SELECT raise(ABORT, 'the ledger is append-only'); END;
