DROP TRIGGER messages_ended ON messages;
DROP TRIGGER messages_created ON messages;
DROP TRIGGER chats_renamed ON chats;
DROP TRIGGER chats_created ON chats;
DROP FUNCTION queue_message;
DROP FUNCTION queue_chat;
DROP TABLE search_queue;
DROP TABLE message_words;
DROP TABLE chat_words;
