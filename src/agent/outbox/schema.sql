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
CREATE INDEX IF NOT EXISTS media_by_number ON media (rendition, playlist_seq);
-- One for each question that every segment asks, in the order of its answer: otherwise each would sort all that waits, and
-- an outage would take the square of its length to work off.
DROP INDEX IF EXISTS media_by_state;
CREATE INDEX IF NOT EXISTS media_to_add_newest ON media (on_disk DESC, rendition <> 'source', playlist_seq DESC)
  WHERE state = 0;
CREATE INDEX IF NOT EXISTS media_to_add_oldest ON media (on_disk DESC, rendition <> 'source', playlist_seq)
  WHERE state = 0;
CREATE INDEX IF NOT EXISTS media_to_announce ON media (rendition <> 'source', playlist_seq) WHERE state = 1;
CREATE INDEX IF NOT EXISTS media_to_repeat ON media (again_us, rendition <> 'source', playlist_seq) WHERE state = 2;
CREATE INDEX IF NOT EXISTS media_unstored ON media (rendition, start_us) WHERE state < 3;
CREATE INDEX IF NOT EXISTS media_to_trim ON media (playlist_seq) WHERE state = 3;
CREATE INDEX IF NOT EXISTS media_to_drop
  ON media (rendition = 'source', CASE state WHEN 3 THEN 0 WHEN 0 THEN 2 ELSE 1 END, playlist_seq) WHERE on_disk = 1;
-- How many there are in each state, for the same reason. Counted anew when the file is opened.
CREATE TABLE IF NOT EXISTS tally (
  is_source INTEGER NOT NULL,
  state INTEGER NOT NULL,
  segments INTEGER NOT NULL,
  bytes INTEGER NOT NULL,           -- of those on disk
  PRIMARY KEY (is_source, state)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS media_comes AFTER INSERT ON media BEGIN
  INSERT INTO tally VALUES (new.rendition = 'source', new.state, 1, new.bytes * new.on_disk)
  ON CONFLICT DO UPDATE SET segments = segments + 1, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER IF NOT EXISTS media_goes AFTER DELETE ON media BEGIN
  UPDATE tally SET segments = segments - 1, bytes = bytes - old.bytes * old.on_disk
  WHERE is_source = (old.rendition = 'source') AND state = old.state;
END;
CREATE TRIGGER IF NOT EXISTS media_moves AFTER UPDATE OF state, on_disk ON media BEGIN
  UPDATE tally SET segments = segments - 1, bytes = bytes - old.bytes * old.on_disk
  WHERE is_source = (old.rendition = 'source') AND state = old.state;
  INSERT INTO tally VALUES (new.rendition = 'source', new.state, 1, new.bytes * new.on_disk)
  ON CONFLICT DO UPDATE SET segments = segments + 1, bytes = bytes + excluded.bytes;
END;
DELETE FROM tally;
INSERT INTO tally
  SELECT rendition = 'source', state, count(*), sum(bytes * on_disk) FROM media GROUP BY rendition = 'source', state;
CREATE TABLE IF NOT EXISTS gaps (
  id INTEGER PRIMARY KEY,
  gap TEXT NOT NULL                 -- JSON: domain::segment::Gap
) STRICT;
