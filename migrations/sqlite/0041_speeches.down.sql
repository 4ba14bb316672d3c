DROP TABLE reply_audio;
DROP TABLE speeches;
