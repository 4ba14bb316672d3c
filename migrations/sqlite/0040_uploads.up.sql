-- The recordings that are on their way to becoming messages. A row lives until it
-- expires, also when its recording was used: whoever completes it once more gets
-- the same reply. fence begins anywhere: an id that is given out again after a
-- wipe has another one.
CREATE TABLE uploads (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id    INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    chat_id    INTEGER REFERENCES chats (id) ON DELETE CASCADE,
    message_id INTEGER REFERENCES messages (id) ON DELETE CASCADE,
    format     TEXT NOT NULL,
    sniffed    BOOLEAN NOT NULL DEFAULT FALSE,
    size       BIGINT NOT NULL DEFAULT 0 CHECK (size >= 0),
    whole      BOOLEAN NOT NULL DEFAULT FALSE,
    ended      BOOLEAN NOT NULL DEFAULT FALSE,
    owner      TEXT NOT NULL,
    fence      BIGINT NOT NULL,
    tries      BIGINT NOT NULL DEFAULT 0,
    voice      TEXT NOT NULL,
    speed      DOUBLE PRECISION NOT NULL DEFAULT 0,
    key_route  TEXT NOT NULL,
    key        TEXT NOT NULL,
    body_hash  TEXT NOT NULL,
    transcript TEXT NOT NULL,
    failure    TEXT NOT NULL,
    created_at TIMESTAMP NOT NULL,
    expires_at TIMESTAMP NOT NULL
);

-- How many a user has, and the cascade from users.
CREATE INDEX uploads_user_id_idx ON uploads (user_id);
-- The cascades from chats and messages.
CREATE INDEX uploads_chat_id_idx ON uploads (chat_id);
CREATE INDEX uploads_message_id_idx ON uploads (message_id);
-- Those that lapsed.
CREATE INDEX uploads_expires_at_idx ON uploads (expires_at);

-- What has arrived of a recording. The rows of one lie end to end: start is the
-- offset of the first byte.
CREATE TABLE upload_chunks (
    upload_id INTEGER NOT NULL REFERENCES uploads (id) ON DELETE CASCADE,
    start     BIGINT NOT NULL CHECK (start >= 0),
    size      BIGINT NOT NULL CHECK (size > 0),
    data      BLOB NOT NULL,
    PRIMARY KEY (upload_id, start)
);
