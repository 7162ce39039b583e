"""HTTP/2 on the wire (RFC 9113): frames, streams, flow control, header compression, priorities. Pure but the conversation."""
