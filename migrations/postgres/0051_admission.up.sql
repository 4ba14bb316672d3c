-- A send as two functions, so that the AI backend can be asked after the first one
-- and what takes longer is done meanwhile. append_turn is what the version before calls.

-- Says whether a message of a user may be stored, and nothing can refuse it any more:
-- counted under a limit if _emission is not 0, with tokens set aside if _daily_limit is
-- not 0, and under a key if that is not ''. It returns the ids that it is to have, and its
-- chat as it is before that: the id alone where _chat_id is 0 and a chat begins. If the
-- limit does not allow it, it returns that and has stored nothing else; if something else
-- is in its way it raises no_data_found.
CREATE FUNCTION admit_turn(
    _user_id bigint, _chat_id bigint, _now timestamptz, _route text, _key text, _body_hash text,
    _day text, _reserved bigint, _daily_limit bigint, _limit_key text, _emission bigint, _burst bigint,
    OUT chat chats, OUT user_message_id bigint, OUT reply_id bigint, OUT tat bigint, OUT allowed boolean, OUT now bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    IF _emission > 0 THEN
        SELECT * INTO tat, allowed, now FROM count_hit(_limit_key, _emission, _burst);
        IF NOT allowed THEN
            RETURN;
        END IF;
    END IF;
    -- Chats are locked first, as all writers do.
    IF _chat_id = 0 THEN
        LOCK TABLE chats IN ROW EXCLUSIVE MODE;
        PERFORM 1 FROM users WHERE id = _user_id FOR KEY SHARE;
        IF NOT FOUND THEN
            RAISE no_data_found;
        END IF;
        chat.id := nextval('chats_id_seq');
    ELSE
        SELECT * INTO chat FROM chats WHERE id = _chat_id AND user_id = _user_id FOR NO KEY UPDATE;
        -- Whoever waited for that row sees what was committed meanwhile from the next
        -- statement on.
        IF NOT FOUND OR EXISTS (SELECT 1 FROM replies WHERE chat_id = _chat_id) THEN
            RAISE no_data_found;
        END IF;
    END IF;
    user_message_id := nextval('messages_id_seq');
    reply_id := nextval('messages_id_seq');
    IF _key <> '' THEN
        INSERT INTO idempotency_keys (user_id, route, key, body_hash, status, message_id, created_at)
        VALUES (_user_id, _route, _key, _body_hash, 0, reply_id, _now)
        ON CONFLICT (user_id, route, key) DO NOTHING;
        IF NOT FOUND THEN
            RAISE no_data_found;
        END IF;
    END IF;
    IF _daily_limit > 0 AND NOT set_aside(_user_id, _day, _reserved, _daily_limit) THEN
        RAISE no_data_found;
    END IF;
END $$;

-- Stores what admit_turn has admitted: the message of the user and a reply that is
-- being written, in a chat that begins or is there.
CREATE FUNCTION store_turn(
    _user_id bigint, _chat_id bigint, _begins boolean, _title text, _user_message_id bigint, _content text, _reply_id bigint,
    _owner text, _now timestamptz, _reserved bigint, _context_bytes bigint, _context_messages bigint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF _begins THEN
        INSERT INTO chats (id, user_id, title, titled, created_at, message_count, last_message_at, active_at)
        VALUES (_chat_id, _user_id, _title, TRUE, _now, 2, _now, _now);
    ELSE
        UPDATE chats SET message_count = message_count + 2, last_message_at = _now, active_at = _now, title = _title, titled = TRUE
        WHERE id = _chat_id;
    END IF;
    INSERT INTO messages (id, chat_id, role, content, status, created_at)
    VALUES (_user_message_id, _chat_id, 'user', _content, 'complete', _now), (_reply_id, _chat_id, 'assistant', '', 'streaming', _now);
    INSERT INTO replies (message_id, chat_id, user_id, user_message_id, owner, started_at, reserved, context_bytes, context_messages)
    VALUES (_reply_id, _chat_id, _user_id, _user_message_id, _owner, _now, _reserved, _context_bytes, _context_messages);
END $$;
