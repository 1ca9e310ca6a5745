"""How commands are read: their forms, spellings, times and ids."""
