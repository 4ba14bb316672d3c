DROP TABLE imported_chats;
DROP TABLE imported_users;
DROP TABLE imports;
