-- What every send does, as functions: a session of the database parses and plans
-- their statements once, whatever pooler stands before it, and each is one round trip. Package models says what each is for. They are never changed: a version of
-- the program that needs another one adds it under another name, since the version
-- before is still running while it is rolled out.

-- Counts one hit under a key. A key that is not there has its whole quota. For a
-- row that is there SET is computed once it is locked, by what the caller before has
-- left and by the time of that moment: the order of the callers is that of their
-- times, all of them in microseconds since 1970.
CREATE FUNCTION count_hit(_key text, _emission bigint, _burst bigint, OUT tat bigint, OUT allowed boolean, OUT now bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    INSERT INTO throttles AS t (key, tat, allowed)
    VALUES (_key, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint + _emission, TRUE)
    ON CONFLICT (key) DO UPDATE SET (tat, allowed) = (
        SELECT CASE WHEN next <= now + _burst THEN next ELSE t.tat END, next <= now + _burst
        FROM (SELECT now, CASE WHEN t.tat > now THEN t.tat ELSE now END + _emission AS next
            FROM (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now) AS hit) AS arrival)
    RETURNING t.tat, t.allowed, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint INTO tat, allowed, now;
END $$;

-- Sets tokens of a user's day aside, unless that would be more than the limit: of
-- any number of callers those get in whose sum is within it.
CREATE FUNCTION set_aside(_user_id bigint, _day text, _reserved bigint, _daily_limit bigint) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO usage_days AS d (user_id, day, reserved)
    SELECT _user_id, _day, _reserved WHERE _reserved <= _daily_limit
    ON CONFLICT (user_id, day) DO UPDATE SET reserved = d.reserved + EXCLUDED.reserved
        WHERE d.input_tokens + d.output_tokens + d.reserved + EXCLUDED.reserved <= _daily_limit;
    RETURN FOUND;
END $$;

-- Stores a message of a user and a reply that is being written, in a new chat
-- where _chat_id is 0, counted under a limit if _emission is not 0, with a key if it
-- is not '', and with tokens set aside if _daily_limit is not 0. If the limit does
-- not allow it, it returns that and has stored nothing else; if something else is in
-- its way it raises no_data_found or a unique violation.
CREATE FUNCTION append_turn(
    _user_id bigint, _chat_id bigint, _content text, _title text, _owner text, _now timestamptz,
    _route text, _key text, _body_hash text,
    _day text, _reserved bigint, _daily_limit bigint, _context_bytes bigint, _context_messages bigint,
    _limit_key text, _emission bigint, _burst bigint,
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
    -- The chat's row is locked first, as all writers do.
    IF _chat_id = 0 THEN
        INSERT INTO chats (user_id, title, titled, created_at, message_count, last_message_at, active_at)
        SELECT _user_id, _title, TRUE, _now, 2, _now, _now
        WHERE NOT EXISTS (SELECT 1 FROM idempotency_keys WHERE user_id = _user_id AND route = _route AND key = _key)
        RETURNING * INTO chat;
    ELSE
        UPDATE chats SET message_count = message_count + 2, last_message_at = _now, active_at = _now,
            title = CASE WHEN titled THEN title ELSE _title END, titled = TRUE
        WHERE id = _chat_id AND user_id = _user_id
            AND NOT EXISTS (SELECT 1 FROM replies WHERE chat_id = _chat_id)
            AND NOT EXISTS (SELECT 1 FROM idempotency_keys WHERE user_id = _user_id AND route = _route AND key = _key)
        RETURNING * INTO chat;
    END IF;
    IF NOT FOUND THEN
        RAISE no_data_found;
    END IF;
    INSERT INTO messages (chat_id, role, content, status, created_at)
    VALUES (chat.id, 'user', _content, 'complete', _now) RETURNING id INTO user_message_id;
    INSERT INTO messages (chat_id, role, content, status, created_at)
    VALUES (chat.id, 'assistant', '', 'streaming', _now) RETURNING id INTO reply_id;
    INSERT INTO replies (message_id, chat_id, user_id, user_message_id, owner, started_at, reserved, context_bytes, context_messages)
    VALUES (reply_id, chat.id, _user_id, user_message_id, _owner, _now, _reserved, _context_bytes, _context_messages);
    IF _key <> '' THEN
        INSERT INTO idempotency_keys (user_id, route, key, body_hash, status, message_id, created_at)
        VALUES (_user_id, _route, _key, _body_hash, 0, reply_id, _now);
    END IF;
    IF _daily_limit > 0 AND NOT set_aside(_user_id, _day, _reserved, _daily_limit) THEN
        RAISE no_data_found;
    END IF;
END $$;

-- Appends to the feed of a user, and says if somebody follows it; no_data_found if
-- there is no such user. A message's id of 0 is none.
CREATE FUNCTION tell_user(_user_id bigint, _kinds text[], _chat_ids bigint[], _message_ids bigint[]) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    latest   bigint;
    followed boolean;
BEGIN
    UPDATE users SET event_seq = event_seq + cardinality(_kinds) WHERE id = _user_id
    RETURNING event_seq, COALESCE(followed_until > clock_timestamp(), FALSE) INTO latest, followed;
    IF NOT FOUND THEN
        RAISE no_data_found;
    END IF;
    INSERT INTO user_events (user_id, seq, kind, chat_id, message_id, created_at)
    SELECT _user_id, latest - cardinality(_kinds) + i, _kinds[i], _chat_ids[i], NULLIF(_message_ids[i], 0), clock_timestamp()
    FROM generate_series(1, cardinality(_kinds)) AS i;
    RETURN followed;
END $$;
