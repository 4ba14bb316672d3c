-- What parley import has brought over, so that it does not do so again. A row of
-- imports stands for a source. Its ids after one and up to another belong to it:
-- they were given to nobody else here.
CREATE TABLE imports (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    source         TEXT NOT NULL UNIQUE,
    users_after    BIGINT NOT NULL,
    users_upto     BIGINT NOT NULL,
    chats_after    BIGINT NOT NULL,
    chats_upto     BIGINT NOT NULL,
    messages_after BIGINT NOT NULL,
    messages_upto  BIGINT NOT NULL,
    started_at     TIMESTAMP NOT NULL
);

-- new_id is NULL once the account was deleted here.
CREATE TABLE imported_users (
    import_id      INTEGER NOT NULL REFERENCES imports (id) ON DELETE CASCADE,
    old_id         BIGINT NOT NULL,
    new_id         INTEGER REFERENCES users (id) ON DELETE SET NULL,
    old_created_at TIMESTAMP,
    PRIMARY KEY (import_id, old_id)
) WITHOUT ROWID;

CREATE INDEX imported_users_new_id_idx ON imported_users (new_id);

-- old_message_id is the largest old id of a message that was considered.
CREATE TABLE imported_chats (
    import_id      INTEGER NOT NULL REFERENCES imports (id) ON DELETE CASCADE,
    old_id         BIGINT NOT NULL,
    new_id         INTEGER REFERENCES chats (id) ON DELETE SET NULL,
    old_message_id BIGINT NOT NULL,
    PRIMARY KEY (import_id, old_id)
) WITHOUT ROWID;

CREATE INDEX imported_chats_new_id_idx ON imported_chats (new_id);
