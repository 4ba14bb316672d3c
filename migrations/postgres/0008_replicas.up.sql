-- The running processes. A reply whose owner has no row with a lease in the
-- future is an orphan.
CREATE TABLE replicas (
    id          text NOT NULL PRIMARY KEY,
    lease_until timestamptz NOT NULL,
    started_at  timestamptz NOT NULL
);
