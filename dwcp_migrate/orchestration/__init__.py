"""Plans carried out: the fleet as it is, execution of moves, the journal that a plan resumes from."""
