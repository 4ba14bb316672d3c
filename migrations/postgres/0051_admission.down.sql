DROP FUNCTION store_turn, admit_turn;
