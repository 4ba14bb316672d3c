-- How many streams a user has open on a replica, of users who have many.
CREATE TABLE stream_counts (
    replica text NOT NULL REFERENCES replicas (id) ON DELETE CASCADE,
    user_id bigint NOT NULL,
    open    bigint NOT NULL CHECK (open > 0),
    PRIMARY KEY (replica, user_id)
);
