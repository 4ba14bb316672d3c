-- The saved text of a running reply, appended in pieces; start is the offset of a
-- piece in bytes.
CREATE TABLE reply_chunks (
    message_id bigint NOT NULL REFERENCES messages (id) ON DELETE CASCADE,
    start      bigint NOT NULL CHECK (start >= 0),
    text       text NOT NULL,
    PRIMARY KEY (message_id, start)
);
