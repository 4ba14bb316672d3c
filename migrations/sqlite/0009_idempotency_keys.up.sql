CREATE TABLE idempotency_keys (
    user_id    INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    route      TEXT NOT NULL,
    key        TEXT NOT NULL,
    body_hash  TEXT NOT NULL,
    status     INTEGER NOT NULL,
    answer     TEXT,
    message_id INTEGER,
    created_at TIMESTAMP NOT NULL,
    PRIMARY KEY (user_id, route, key)
);

-- The purge of old keys.
CREATE INDEX idempotency_keys_created_at_idx ON idempotency_keys (created_at);
