-- Finds an instance that makes renditions.
CREATE INDEX streams_by_transcoder ON streams (json_extract(config, '$.transcoder'));

-- The last words of instances that no stream's configuration names yet.
CREATE TABLE strangers (
    id        INTEGER PRIMARY KEY AUTOINCREMENT, -- in the order in which they came
    uid       TEXT    NOT NULL UNIQUE,
    namespace TEXT    NOT NULL,                  -- of the agent that said it
    at_us     INTEGER NOT NULL,                  -- issuedAt
    report    TEXT    NOT NULL                   -- InstanceReport as JSON
) STRICT;

-- Finds a stream's pins that end before its retention does: by how long each is made for.
CREATE INDEX rollups_by_span ON rollups (stream_id, expires_us - end_us) WHERE state = 'stored';
