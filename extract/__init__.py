"""Stage one: sources to items to shards; each item is read and encoded once."""
