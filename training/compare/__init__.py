"""`xmc-train compare`: recipes, trained artifacts and other libraries on one split, in one report."""
