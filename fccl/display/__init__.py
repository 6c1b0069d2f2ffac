"""Values as people read them: words for figures, tables, pictures, and text of others as signs."""
