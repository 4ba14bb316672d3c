-- What a user has used on a day (UTC), in tokens: the sums of usage, how much of
-- them is estimated, how many replies have ended, and what is set aside for those
-- that run. One row, so that a daily limit is one conditional statement.
CREATE TABLE usage_days (
    user_id          bigint NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    day              text NOT NULL,
    input_tokens     bigint NOT NULL DEFAULT 0,
    output_tokens    bigint NOT NULL DEFAULT 0,
    estimated_tokens bigint NOT NULL DEFAULT 0,
    replies          bigint NOT NULL DEFAULT 0,
    reserved         bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (user_id, day)
) WITH (fillfactor = 50);

-- What all users have used on a day.
CREATE INDEX usage_days_day_idx ON usage_days (day);
