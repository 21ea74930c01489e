"""From a collection to a served model: which stages there are, what they will take, and which of them are done."""
