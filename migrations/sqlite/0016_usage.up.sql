-- What each attempt at a reply has used, in tokens: one row for each owner, who is
-- known by its fence, and with the fence 0 one for the chat's title. It stays when
-- the message goes, so it does not refer to it.
CREATE TABLE usage (
    message_id    BIGINT NOT NULL,
    fence         INTEGER NOT NULL CHECK (fence >= 0),
    user_id       INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    chat_id       BIGINT NOT NULL,
    day           TEXT NOT NULL,
    model         TEXT NOT NULL,
    input_tokens  BIGINT NOT NULL CHECK (input_tokens >= 0),
    output_tokens BIGINT NOT NULL CHECK (output_tokens >= 0),
    estimated     BOOLEAN NOT NULL,
    created_at    TIMESTAMP NOT NULL,
    PRIMARY KEY (message_id, fence)
) WITHOUT ROWID;

-- What a user has used, in order, and the cascade from users.
CREATE INDEX usage_user_id_message_id_idx ON usage (user_id, message_id);
