CREATE TABLE idempotency_keys (
    user_id    bigint NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    route      text NOT NULL,
    key        text NOT NULL,
    body_hash  text NOT NULL,
    status     integer NOT NULL,
    answer     text,
    message_id bigint,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (user_id, route, key)
);

-- The purge of old keys.
CREATE INDEX idempotency_keys_created_at_idx ON idempotency_keys (created_at);
