-- What a user has used on a day (UTC), in tokens: the sums of usage, how much of
-- them is estimated, how many replies have ended, and what is set aside for those
-- that run. One row, so that a daily limit is one conditional statement.
CREATE TABLE usage_days (
    user_id          INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    day              TEXT NOT NULL,
    input_tokens     BIGINT NOT NULL DEFAULT 0,
    output_tokens    BIGINT NOT NULL DEFAULT 0,
    estimated_tokens BIGINT NOT NULL DEFAULT 0,
    replies          BIGINT NOT NULL DEFAULT 0,
    reserved         BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (user_id, day)
) WITHOUT ROWID;

-- What all users have used on a day.
CREATE INDEX usage_days_day_idx ON usage_days (day);
