ALTER TABLE messages DROP COLUMN estimated;
