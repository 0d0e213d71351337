"""From texts to results: the model as a user sees it."""
