-- The replies that are being written at this moment; a row goes when its reply
-- ends. UNIQUE (chat_id) is what allows one reply at a time in a chat.
CREATE TABLE replies (
    message_id        INTEGER PRIMARY KEY REFERENCES messages (id) ON DELETE CASCADE,
    chat_id           INTEGER NOT NULL UNIQUE REFERENCES chats (id) ON DELETE CASCADE,
    user_id           INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    user_message_id   INTEGER NOT NULL,
    owner             TEXT NOT NULL,
    fence             INTEGER NOT NULL DEFAULT 1 CHECK (fence >= 1),
    saved_bytes       BIGINT NOT NULL DEFAULT 0 CHECK (saved_bytes >= 0),
    stop_requested_at TIMESTAMP,
    watched_until     TIMESTAMP,
    started_at        TIMESTAMP NOT NULL
);

-- What one replica writes.
CREATE INDEX replies_owner_idx ON replies (owner);
-- The cascade from users.
CREATE INDEX replies_user_id_idx ON replies (user_id);
