// Package gateway is where mail comes in: listeners and their sessions, and the
// two pipelines they hand a message to.
//
//	Listener -> wire -> go-smtp -> session -> Handler (inbound or outbound pipeline)
//
// The network side stands on one division of labour. wire owns the byte stream:
// what is a command line, where a body ends, how long either may take and how
// large it may be. go-smtp owns the grammar: verbs, ESMTP parameters, LMTP
// replies; it sees one command line per read and every body as empty. session
// collects an Envelope and asks the Handler; reply is the one place where an
// error becomes an answer on the wire.
//
// A session promises its Handler: calls come one at a time, every Sink is
// discarded exactly once, body bytes are the message's own, and a 250 is said
// only after Accept returned nil. It promises the client that nothing but
// CRLF.CRLF ends DATA, and that no byte of a body is ever taken for a command.
package gateway
