-- Who did what to whom, when, from where. It outlives all that it speaks of, so
-- it refers to nothing, and ids of users may have been given to others since.
CREATE TABLE audit_entries (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    at            TIMESTAMP NOT NULL,
    action        TEXT NOT NULL,
    actor_id      INTEGER,
    actor_email   TEXT,
    subject_id    INTEGER,
    subject_email TEXT,
    ip            TEXT NOT NULL,
    request_id    TEXT NOT NULL,
    detail        TEXT NOT NULL
);

-- What a user did, and what was done to it.
CREATE INDEX audit_entries_actor_id_id_idx ON audit_entries (actor_id, id);
CREATE INDEX audit_entries_subject_id_id_idx ON audit_entries (subject_id, id);
-- The purge of old entries.
CREATE INDEX audit_entries_at_idx ON audit_entries (at);
