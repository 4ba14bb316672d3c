-- The replies that are being written at this moment; a row goes when its reply
-- ends. UNIQUE (chat_id) is what allows one reply at a time in a chat. Each row
-- is updated several times a second: the free half of a page lets that happen in
-- place, without touching an index.
CREATE TABLE replies (
    message_id        bigint PRIMARY KEY REFERENCES messages (id) ON DELETE CASCADE,
    chat_id           bigint NOT NULL UNIQUE REFERENCES chats (id) ON DELETE CASCADE,
    user_id           bigint NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    user_message_id   bigint NOT NULL,
    owner             text NOT NULL,
    fence             integer NOT NULL DEFAULT 1 CHECK (fence >= 1),
    saved_bytes       bigint NOT NULL DEFAULT 0 CHECK (saved_bytes >= 0),
    stop_requested_at timestamptz,
    watched_until     timestamptz,
    started_at        timestamptz NOT NULL
) WITH (fillfactor = 50);

-- What one replica writes.
CREATE INDEX replies_owner_idx ON replies (owner);
-- The cascade from users.
CREATE INDEX replies_user_id_idx ON replies (user_id);
