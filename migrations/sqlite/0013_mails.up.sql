-- The outbox: mails that are not sent yet. A notice to a former address outlives
-- nothing that it refers to, so user_id is no reference. data is a JSON object of
-- strings, without secrets.
CREATE TABLE mails (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    kind       TEXT NOT NULL,
    user_id    INTEGER,
    recipient  TEXT NOT NULL,
    data       TEXT NOT NULL,
    attempts   INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    next_at    TIMESTAMP NOT NULL,
    created_at TIMESTAMP NOT NULL,
    last_error TEXT
);

-- What is due.
CREATE INDEX mails_next_at_idx ON mails (next_at);
-- What waits for one user.
CREATE INDEX mails_user_id_idx ON mails (user_id);
