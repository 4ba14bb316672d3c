-- The voices of replies that are spoken. A row has an owner of its own, since a
-- voice goes on when its reply's text has ended, and lives as long as the message:
-- pieces says which ids of events there were, also when the audio is gone. fence
-- begins anywhere: an id that is given out again after a wipe has another one.
CREATE TABLE speeches (
    message_id bigint PRIMARY KEY REFERENCES messages (id) ON DELETE CASCADE,
    name       text NOT NULL,
    speed      double precision NOT NULL,
    format     text NOT NULL,
    owner      text NOT NULL,
    fence      bigint NOT NULL,
    attempt    integer NOT NULL DEFAULT 1 CHECK (attempt >= 1),
    pieces     integer NOT NULL DEFAULT 0 CHECK (pieces >= 0),
    state      text NOT NULL CHECK (state IN ('running', 'done', 'stopped', 'failed', 'expired')),
    started_at timestamptz NOT NULL,
    ended_at   timestamptz
);

-- What is being spoken, and the audio that lapses.
CREATE INDEX speeches_running_idx ON speeches (message_id) WHERE state = 'running';
CREATE INDEX speeches_ended_idx ON speeches (ended_at) WHERE state IN ('done', 'stopped', 'failed');

-- The audio of a reply, appended in pieces: seq counts them from 1 on, upto is the
-- offset in bytes of the text that a piece ends with. Sound does not get smaller by
-- compression.
CREATE TABLE reply_audio (
    message_id bigint NOT NULL REFERENCES speeches (message_id) ON DELETE CASCADE,
    seq        integer NOT NULL CHECK (seq >= 1),
    attempt    integer NOT NULL,
    upto       bigint NOT NULL CHECK (upto >= 0),
    data       bytea NOT NULL,
    PRIMARY KEY (message_id, seq)
);
ALTER TABLE reply_audio ALTER COLUMN data SET STORAGE EXTERNAL;
