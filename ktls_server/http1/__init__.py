"""HTTP/1.1 as pure logic: requests, targets, ranges, conditionals, negotiation, response heads."""
