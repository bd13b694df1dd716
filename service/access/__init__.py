"""Who may ask what, and how much: keys, their roles and their rates."""
