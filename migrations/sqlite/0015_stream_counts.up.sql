-- How many streams a user has open on a replica, of users who have many.
CREATE TABLE stream_counts (
    replica TEXT NOT NULL REFERENCES replicas (id) ON DELETE CASCADE,
    user_id BIGINT NOT NULL,
    open    BIGINT NOT NULL CHECK (open > 0),
    PRIMARY KEY (replica, user_id)
) WITHOUT ROWID;
