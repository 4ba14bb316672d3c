-- PostgreSQL compresses what is longer than 2 KB, by itself with pglz, which took a third
-- of its processor time where replies are as fast as they can be. lz4 takes a tenth of
-- that. Where there is none (before 14, or built without it), or somebody reads for
-- long in these tables, whom everybody else would wait behind, it stays as it is.
DO $$
BEGIN
    SET LOCAL lock_timeout = '1s';
    EXECUTE 'ALTER TABLE messages ALTER COLUMN content SET COMPRESSION lz4';
    EXECUTE 'ALTER TABLE reply_chunks ALTER COLUMN text SET COMPRESSION lz4';
    EXECUTE 'ALTER TABLE message_words ALTER COLUMN words SET COMPRESSION lz4';
    RESET lock_timeout;
EXCEPTION WHEN syntax_error OR feature_not_supported OR lock_not_available THEN
    NULL;
END $$;
