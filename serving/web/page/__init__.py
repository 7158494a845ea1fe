"""The page at GET /: its files, the last calls that it shows, and who may have them. No text of the user's is kept for it."""
