"""The one thread that owns the socket, all domain state and the writing connection, and the parts it is made of."""
