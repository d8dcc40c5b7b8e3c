"""One script a question; each prints its table, and the README beside them holds the tables read so far."""
