-- What the agent must remember over kill -9: numbers given, segments open, gaps to tell.
CREATE TABLE IF NOT EXISTS books (
  name TEXT PRIMARY KEY,            -- 'stream'
  book TEXT NOT NULL                -- JSON: domain::session::StreamBook
) STRICT;
CREATE TABLE IF NOT EXISTS sessions (
  session TEXT PRIMARY KEY,
  book TEXT NOT NULL,               -- JSON: domain::session::SessionBook
  init TEXT NOT NULL,               -- JSON: the init section's blob; null in a container without
  init_added INTEGER NOT NULL,      -- is the init section in IPFS?
  closed INTEGER NOT NULL,          -- no further segment will come
  ended TEXT                        -- JSON: domain::spool::SessionEnd
) STRICT;
CREATE TABLE IF NOT EXISTS rendition_inits (
  session TEXT NOT NULL,            -- the init section of this rendition of it is in IPFS
  rendition TEXT NOT NULL,
  PRIMARY KEY (session, rendition)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS media (
  session TEXT NOT NULL,
  rendition TEXT NOT NULL,          -- 'source', or the name of a rung of the ladder
  seq INTEGER NOT NULL,
  playlist_seq INTEGER NOT NULL,
  start_us INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  state INTEGER NOT NULL,           -- 0 sealed, 1 added, 2 announced, 3 stored
  on_disk INTEGER NOT NULL,
  announced_us INTEGER NOT NULL,    -- when it was announced last
  announcements INTEGER NOT NULL,
  again_us INTEGER NOT NULL,        -- when it is announced next
  segment TEXT NOT NULL,            -- JSON: domain::segment::Segment
  PRIMARY KEY (session, rendition, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS media_by_state ON media (state, playlist_seq);
CREATE INDEX IF NOT EXISTS media_by_number ON media (rendition, playlist_seq);
CREATE TABLE IF NOT EXISTS gaps (
  id INTEGER PRIMARY KEY,
  gap TEXT NOT NULL                 -- JSON: domain::segment::Gap
) STRICT;
