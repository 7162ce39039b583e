"""HTTP/1.1 on the wire (RFC 9112): the request parser, around h11, and response heads as bytes."""
