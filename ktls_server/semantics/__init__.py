"""HTTP semantics (RFC 9110), shared by every version of HTTP: messages, targets, ranges, conditionals, negotiation. Pure."""
