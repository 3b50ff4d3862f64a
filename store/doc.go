// Package store holds casegate's records and what a store promises about
// them; it knows no technology and imports nothing of ours.
//
// A store is told what happened in records (a Case, a Message with its parties
// and links, a Delivery, a log row), never in keys or SQL. Two implementations
// share the contract: store/bolt (embedded, the default) and, later, PostgreSQL
// with S3. store/storetest is the contract as a test suite; every store passes
// it.
//
// What is kept, and what it is worth:
//
//	record        may it be lost    may it be rolled back      is it trusted
//	Installation  no: old tokens    only with the whole store  yes, made here
//	              stop working
//	Case          no                only with the whole store  yes, decided here
//	Contact       no                only with the whole store  as its source is
//	Account,Agent no                only with the whole store  yes, entered by operators
//	Message       no                only with the whole store  the decision is, the
//	                                                           mail's own words are not
//	archived EML  no                never changed once written its bytes are a stranger's
//	Delivery      no                to an earlier attempt: the yes
//	                                recipient may get it twice
//	LogEntry      no                only with the whole store  yes
//	staged body   yes, until its    always: swept when orphaned no
//	              Message commits
package store
