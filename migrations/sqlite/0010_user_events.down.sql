DROP TABLE user_events;

ALTER TABLE users DROP COLUMN followed_until;
ALTER TABLE users DROP COLUMN event_seq;
