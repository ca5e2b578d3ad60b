"""From bytes of a peer to rows that count: socket, gate, sessions."""
