CREATE TABLE messages (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    chat_id       INTEGER NOT NULL REFERENCES chats (id) ON DELETE CASCADE,
    role          TEXT NOT NULL CHECK (role IN ('user', 'assistant')),
    content       TEXT NOT NULL,
    status        TEXT NOT NULL CHECK (status IN ('complete', 'streaming', 'stopped', 'failed')),
    finish_reason TEXT,
    input_tokens  BIGINT,
    output_tokens BIGINT,
    error_code    TEXT,
    attempt       INTEGER NOT NULL DEFAULT 1 CHECK (attempt >= 1),
    shared_bytes  BIGINT NOT NULL DEFAULT 0 CHECK (shared_bytes >= 0),
    created_at    TIMESTAMP NOT NULL
);

-- A chat's messages in order, from either end, and the cascade from chats.
CREATE INDEX messages_chat_id_id_idx ON messages (chat_id, id);
