"""Who the negatives of a query are."""
