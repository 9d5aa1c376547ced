"""Reading users' tables, folders and files, downloading official ones, and splitting rows."""
