-- How much of each quota is used up: tat is the theoretical arrival time of the
-- generic cell rate algorithm (ITU-T I.371), in microseconds since 1970, and
-- allowed what the last hit was told. A row changes with every hit, in place
-- where its page has room, so there is no index on tat.
CREATE TABLE throttles (
    key     text NOT NULL PRIMARY KEY,
    tat     bigint NOT NULL,
    allowed boolean NOT NULL
) WITH (fillfactor = 50);
