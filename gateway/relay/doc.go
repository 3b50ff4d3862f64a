// Package relay is the outbox at work: claim, one delivery attempt, retry
// table, bounces.
//
// A delivery is a row of the store (store.Delivery). Run claims rows that are
// due, tries each once by the routes as they are now, and settles the row with
// what came of it: delivered, to be tried again by the retry table, failed, or
// held because no route leads on, or because the message itself is at fault
// (three panics, or three times unreadable). Between two attempts nothing of a
// delivery is kept in memory. Finished rows stay as evidence: the last words
// about each recipient, and of each attempt the next hop, its words, and how
// the session was secured.
//
// A next hop has its share of what is claimed at a time. What is for one that
// has its share already waits in the outbox, in a lane of its own, and is not
// looked at before there is room again: however much waits for one that hangs,
// the others notice nothing. Of what waits for one that is down little is claimed
// at a time, unless another stands in for it.
//
// Towards the next hop the promise is at least once. A message may arrive
// twice only if its final reply was lost (connection cut after the final dot,
// or casegate killed in mid-attempt), or if the final replies are out of step: more
// of them than there should be that are not alike, or one that is no answer; the
// attempt is then marked ambiguous. What a crash leaves behind:
//
//	before the claim   the row, still due
//	after the claim    a leased row; Claim hands it out again as Interrupted
//	after the news     the row and who hears of it, in one transaction; only its
//	                   lease is left, which Claim takes back
//	after the settle   nothing to do
//
// An outcome that can't be stored, for the row is damaged, is kept in memory and
// tried again, without a place among what is claimed at a time; a hundred of them
// at most. A store that takes nothing, full or not to be reached, keeps the places
// taken: what can't be recorded must not go on being sent.
//
// A clock that jumps forward ends leases whose attempts go on: what this process
// has in hand is not begun again. What a clock that was ahead put off for years is
// due at once when it is put right.
//
// The SMTP and LMTP client is our own (RFC 5321, RFC 2033). It ends the data
// only when the whole message was read and is clean: on a read error, a bare
// CR, a bare LF, or a length other than the archived one it closes the
// connection without the final dot, and the next hop has nothing. A body is
// never re-encoded: what needs 8BITMIME or SMTPUTF8, where the next hop has
// none, fails for good with 5.6.3 or 5.6.7 (RFC 6152 §3, RFC 6531 §3.2), for
// waiting would not help. It keeps connections for reuse and writes MAIL, RCPT
// and DATA at once where the next hop offers PIPELINING (RFC 2920).
//
// Who submitted mail from our own side hears of failure, of delay (once), and
// of success where he asked for it and nobody further on tells him: a report
// (RFC 3464) with the null reverse-path, to his own MAIL FROM. Nothing from
// outside is ever reported on; inbound mail that cannot be handed on flags its
// case, or joins the exceptions list. No report names who got a blind copy.
// All of it is written as events to the message too.
//
// What people do to the outbox (hold, release, retry, drop) goes through Acts,
// so that it is heeded at once. An attempt under way enters its outcome into the
// row as they left it.
//
// Nothing here logs a recipient or the text of a reply to MAIL and what follows: a
// Bcc recipient's address must not show (design, invariant 7). Both are in the
// row. Why no session could be opened is logged. What strangers say is escaped
// and cut to size wherever it is kept or shown.
package relay
