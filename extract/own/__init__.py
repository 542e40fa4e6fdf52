"""The user's own data: a table of stays, and one file of arrays, tables, images or texts each."""
