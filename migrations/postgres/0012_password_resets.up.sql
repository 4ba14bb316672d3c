-- One token a user, of which only a hash is kept.
CREATE TABLE password_resets (
    user_id    bigint NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    token_hash text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);
