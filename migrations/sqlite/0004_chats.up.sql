CREATE TABLE chats (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id         INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    title           TEXT NOT NULL,
    titled          BOOLEAN NOT NULL DEFAULT FALSE,
    created_at      TIMESTAMP NOT NULL,
    message_count   BIGINT NOT NULL DEFAULT 0 CHECK (message_count >= 0),
    last_message_at TIMESTAMP,
    active_at       TIMESTAMP NOT NULL
);

-- The chat list, page by page, and the cascade from users.
CREATE INDEX chats_user_id_active_at_id_idx ON chats (user_id, active_at DESC, id DESC);
