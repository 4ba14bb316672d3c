-- The saved text of a running reply, appended in pieces; start is the offset of a
-- piece in bytes.
CREATE TABLE reply_chunks (
    message_id INTEGER NOT NULL REFERENCES messages (id) ON DELETE CASCADE,
    start      BIGINT NOT NULL CHECK (start >= 0),
    text       TEXT NOT NULL,
    PRIMARY KEY (message_id, start)
) WITHOUT ROWID;
