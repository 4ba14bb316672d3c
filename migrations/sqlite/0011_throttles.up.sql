-- How much of each quota is used up: tat is the theoretical arrival time of the
-- generic cell rate algorithm (ITU-T I.371), in microseconds since 1970, and
-- allowed what the last hit was told.
CREATE TABLE throttles (
    key     TEXT NOT NULL PRIMARY KEY,
    tat     BIGINT NOT NULL,
    allowed BOOLEAN NOT NULL
) WITHOUT ROWID;
