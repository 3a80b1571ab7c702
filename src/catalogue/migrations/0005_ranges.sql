-- Holds all that playlists and coverage say of a segment: a camera's rows lie scattered over the table, in the order in
-- which all cameras' segments came, and in this index side by side.
DROP INDEX segments_by_time;
CREATE INDEX segments_by_time ON segments (camera_id, rendition, start_us, end_us, media_us, session_id, seq, init_id,
    playlist_seq, discontinuity_seq, target_seconds, bytes, frames);
