DROP FUNCTION tell_user, append_turn, set_aside, count_hit;
