ALTER TABLE replies DROP COLUMN context_messages;
ALTER TABLE replies DROP COLUMN context_bytes;
ALTER TABLE replies DROP COLUMN counted_bytes;
ALTER TABLE replies DROP COLUMN reserved;
