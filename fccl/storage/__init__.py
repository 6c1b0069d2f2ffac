"""Files on the disk: written whole, locked, read without trust."""
