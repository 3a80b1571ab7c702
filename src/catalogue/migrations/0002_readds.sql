-- How often the bytes of a roll-up were asked for again: each time is waited for twice as long.
ALTER TABLE rollups ADD COLUMN readds INTEGER NOT NULL DEFAULT 0;
