-- For FRAME-RATE in master playlists; 0: not counted.
ALTER TABLE segments ADD COLUMN frames INTEGER NOT NULL DEFAULT 0;
