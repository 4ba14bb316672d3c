-- The running processes. A reply whose owner has no row with a lease in the
-- future is an orphan.
CREATE TABLE replicas (
    id          TEXT NOT NULL PRIMARY KEY,
    lease_until TIMESTAMP NOT NULL,
    started_at  TIMESTAMP NOT NULL
);
