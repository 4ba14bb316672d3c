CREATE TABLE device_sessions (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    sid             TEXT NOT NULL UNIQUE,
    user_id         INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name            TEXT NOT NULL,
    ip              TEXT NOT NULL,
    generation      BIGINT NOT NULL DEFAULT 1 CHECK (generation >= 1),
    generation_used BOOLEAN NOT NULL DEFAULT FALSE,
    rotated_at      TIMESTAMP NOT NULL,
    created_at      TIMESTAMP NOT NULL,
    last_seen_at    TIMESTAMP NOT NULL,
    expires_at      TIMESTAMP NOT NULL
);

-- A user's devices, and the cascade from users. There is none on expires_at: it
-- would have to move at every rotation, and the purge may read the table.
CREATE INDEX device_sessions_user_id_idx ON device_sessions (user_id);
