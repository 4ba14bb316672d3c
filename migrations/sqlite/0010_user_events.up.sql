-- How far a user's feed is, and until when somebody follows it.
ALTER TABLE users ADD COLUMN event_seq BIGINT NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN followed_until TIMESTAMP;

-- What happened to a user: ids, never contents. Within one user the numbers have
-- no gap and rows appear in their order.
CREATE TABLE user_events (
    user_id    INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    seq        BIGINT NOT NULL CHECK (seq >= 1),
    kind       TEXT NOT NULL,
    chat_id    INTEGER NOT NULL,
    message_id INTEGER,
    created_at TIMESTAMP NOT NULL,
    PRIMARY KEY (user_id, seq)
) WITHOUT ROWID;

-- The purge of old events.
CREATE INDEX user_events_created_at_idx ON user_events (created_at);
