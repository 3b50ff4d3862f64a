// Package relay is the outbox at work: claim, one delivery attempt, retry
// table.
//
// A delivery is a row of the store (store.Delivery). Run claims rows that are
// due, tries each once by the routes as they are now, and settles the row with
// what came of it: delivered, to be tried again by the retry table, failed, or
// held because no route leads on. Between two attempts nothing of a delivery
// is kept in memory.
//
// Towards the next hop the promise is at least once. A message may arrive
// twice only if its final reply was lost (connection cut after the final dot,
// or casegate killed in mid-attempt); the attempt is then marked ambiguous.
// What a crash leaves behind:
//
//	before the claim   the row, still due
//	after the claim    a leased row; Claim hands it out again as Interrupted
//	after the settle   nothing to do
//
// The SMTP and LMTP client is our own (RFC 5321, RFC 2033). It ends the data
// only when the whole message was read and is clean: on a read error, a bare
// CR, a bare LF, or a length other than the archived one it closes the
// connection without the final dot, and the next hop has nothing. It keeps
// connections for reuse and writes MAIL, RCPT and DATA at once where the next
// hop offers PIPELINING (RFC 2920).
//
// Bounces (RFC 3464) are not written yet. A failed delivery stays in the
// outbox in state failed, and Event.Bounce names whom a bounce would have to
// be about.
//
// Nothing here logs a recipient or the text of a reply: a Bcc recipient's
// address must not show (design, invariant 7). Both are in the row.
package relay
