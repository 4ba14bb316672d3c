-- Whether a message's tokens are estimated, where the AI service did not count.
ALTER TABLE messages ADD COLUMN estimated boolean NOT NULL DEFAULT FALSE;
