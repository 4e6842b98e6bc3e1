"""The machine without surprises: files, locks, folders, the log."""
