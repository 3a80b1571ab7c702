-- Finds the init sections that no segment needs any more.
CREATE INDEX segments_by_init ON segments (init_id);
