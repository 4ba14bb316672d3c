-- The words of titles and of messages, each with its user's id before it; rowid
-- is the chat's id, or the message's. The program finds the words, so the
-- tokenizer has only to part them. No text is kept here.
CREATE VIRTUAL TABLE chat_words USING fts5(words, content='', contentless_delete=1, detail='none', tokenize="ascii tokenchars '_'");
CREATE VIRTUAL TABLE message_words USING fts5(words, content='', contentless_delete=1, detail='none', tokenize="ascii tokenchars '_'");

CREATE TRIGGER chats_deleted AFTER DELETE ON chats BEGIN
    DELETE FROM chat_words WHERE rowid = old.id;
END;
CREATE TRIGGER messages_deleted AFTER DELETE ON messages BEGIN
    DELETE FROM message_words WHERE rowid = old.id;
END;

-- What is to be found and is not yet: a chat's title, and with a message_id also
-- what was said up to that message.
CREATE TABLE search_queue (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    chat_id    BIGINT NOT NULL,
    message_id BIGINT
);

-- A send queues nothing: its message is found when the reply has ended.
CREATE TRIGGER chats_created AFTER INSERT ON chats WHEN new.message_count = 0 BEGIN
    INSERT INTO search_queue (chat_id) VALUES (new.id);
END;
CREATE TRIGGER chats_renamed AFTER UPDATE OF title ON chats WHEN new.title <> old.title BEGIN
    INSERT INTO search_queue (chat_id) VALUES (new.id);
END;
CREATE TRIGGER messages_created AFTER INSERT ON messages WHEN new.role = 'assistant' AND new.status <> 'streaming' BEGIN
    INSERT INTO search_queue (chat_id, message_id) VALUES (new.chat_id, new.id);
END;
CREATE TRIGGER messages_ended AFTER UPDATE OF content, status ON messages
WHEN new.status <> 'streaming' AND (new.content <> old.content OR new.status <> old.status) BEGIN
    INSERT INTO search_queue (chat_id, message_id) VALUES (new.chat_id, new.id);
END;

INSERT INTO search_queue (chat_id) SELECT id FROM chats;
INSERT INTO search_queue (chat_id, message_id) SELECT chat_id, id FROM messages WHERE status <> 'streaming';
