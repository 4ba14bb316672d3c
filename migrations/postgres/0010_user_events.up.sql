-- How far a user's feed is, and until when somebody follows it. Every change of a
-- user's chats updates the row: what a page keeps free lets that happen in place,
-- without touching an index.
ALTER TABLE users
    ADD COLUMN event_seq      bigint NOT NULL DEFAULT 0,
    ADD COLUMN followed_until timestamptz,
    SET (fillfactor = 70);

-- What happened to a user: ids, never contents. Within one user the numbers have
-- no gap and rows appear in their order.
CREATE TABLE user_events (
    user_id    bigint NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    seq        bigint NOT NULL CHECK (seq >= 1),
    kind       text NOT NULL,
    chat_id    bigint NOT NULL,
    message_id bigint,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (user_id, seq)
);

-- The purge of old events.
CREATE INDEX user_events_created_at_idx ON user_events (created_at);
