DROP TABLE stream_counts;
