"""The paper's tables and figures, and every method in one room: run by one command each."""
