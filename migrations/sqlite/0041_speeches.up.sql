-- The voices of replies that are spoken. A row has an owner of its own, since a
-- voice goes on when its reply's text has ended, and lives as long as the message:
-- pieces says which ids of events there were, also when the audio is gone. fence
-- begins anywhere: an id that is given out again after a wipe has another one.
CREATE TABLE speeches (
    message_id INTEGER PRIMARY KEY REFERENCES messages (id) ON DELETE CASCADE,
    name       TEXT NOT NULL,
    speed      DOUBLE PRECISION NOT NULL,
    format     TEXT NOT NULL,
    owner      TEXT NOT NULL,
    fence      BIGINT NOT NULL,
    attempt    INTEGER NOT NULL DEFAULT 1 CHECK (attempt >= 1),
    pieces     INTEGER NOT NULL DEFAULT 0 CHECK (pieces >= 0),
    state      TEXT NOT NULL CHECK (state IN ('running', 'done', 'stopped', 'failed', 'expired')),
    started_at TIMESTAMP NOT NULL,
    ended_at   TIMESTAMP
);

-- What is being spoken, and the audio that lapses.
CREATE INDEX speeches_running_idx ON speeches (message_id) WHERE state = 'running';
CREATE INDEX speeches_ended_idx ON speeches (ended_at) WHERE state IN ('done', 'stopped', 'failed');

-- The audio of a reply, appended in pieces: seq counts them from 1 on, upto is the
-- offset in bytes of the text that a piece ends with.
CREATE TABLE reply_audio (
    message_id INTEGER NOT NULL REFERENCES speeches (message_id) ON DELETE CASCADE,
    seq        INTEGER NOT NULL CHECK (seq >= 1),
    attempt    INTEGER NOT NULL,
    upto       BIGINT NOT NULL CHECK (upto >= 0),
    data       BLOB NOT NULL,
    PRIMARY KEY (message_id, seq)
);
