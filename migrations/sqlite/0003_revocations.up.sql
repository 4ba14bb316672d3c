-- A feed of what to refuse, read by id. It outlives the rows that it speaks of,
-- so it refers to none of them.
CREATE TABLE revocations (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    sid        TEXT,
    user_id    INTEGER,
    revoked_at TIMESTAMP NOT NULL,
    expires_at TIMESTAMP NOT NULL
);

CREATE INDEX revocations_expires_at_idx ON revocations (expires_at);
