-- What a running reply costs: reserved is set aside for it in usage_days;
-- counted_bytes of its saved text are in usage already, as those of owners who
-- died; and the context is how much of the chat goes along with the message, 0
-- being all.
ALTER TABLE replies ADD COLUMN reserved BIGINT NOT NULL DEFAULT 0;
ALTER TABLE replies ADD COLUMN counted_bytes BIGINT NOT NULL DEFAULT 0;
ALTER TABLE replies ADD COLUMN context_bytes BIGINT NOT NULL DEFAULT 0;
ALTER TABLE replies ADD COLUMN context_messages BIGINT NOT NULL DEFAULT 0;
