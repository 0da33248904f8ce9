"""Collections with queries that a language model wrote: filters, and the folder they are in."""
