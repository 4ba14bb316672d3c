DROP TABLE user_events;

ALTER TABLE users
    DROP COLUMN event_seq,
    DROP COLUMN followed_until,
    RESET (fillfactor);
