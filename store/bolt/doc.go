// Package bolt keeps a store in one file, with bbolt. It is the default.
//
// # Bucket map
//
// A number is 8 bytes, an id 16 (UUIDv7: new rows go to the end), a hash the
// first 16 bytes of a SHA-256, a time 12 bytes that sort. "-" is an empty value.
//
//	meta               word -> schema version, installation
//	cases              number c -> Case              all of a case lies together:
//	                   number d id -> -              its deliveries
//	                   number l id -> LogEntry       its log; number 0: the installation's
//	                   number m id -> -              its messages
//	                   number o ordinal id -> -      and by ordinal (4 bytes)
//	                   number u hash(address) -> usage   who took part in it
//	case-states        state 0 number -> queue       lists by state and queue
//	contacts           id -> Contact
//	                   id > number -> -              the cases he is the customer of
//	registered         id -> -                       guests outnumber them
//	accounts           id -> Account
//	agents             id -> Agent
//	addresses          hash(address) who id -> -     many may share one; who: a registered
//	                                                 contact, b guest, c account, d agent
//	externals          hash(External) contact id -> -
//	messages           id -> Message
//	                   id > delivery id -> -         its deliveries
//	exceptions         id -> reason                  messages on the exceptions list
//	unresolved         id -> -                       on a case, with an unresolved party
//	message-ids        hash(Message-ID) o id -> ref      messages that bear it
//	                   hash(Message-ID) r number -> ref  cases with a message that names it,
//	                                                 and the oldest such message
//	archive            id -> header blocks, and a body up to 16 KiB
//	bodies             body chunk -> bucket { c -> bytes }
//	body-owners        body id -> -                  the messages a body belongs to
//	staged             body -> -                     bodies that belong to none yet
//	deliveries         id -> Delivery
//	due                time id -> -                  the outbox, in order,
//	lanes              hash(lane) time id -> -       and those that wait in a lane
//	leases             id -> until, epoch            claimed: then there is no due row
//	delivery-states    state 0 id -> -               all but the delivered
//	tallies            day hash(kind address case) time any -> checksum
//	                                                 a day is 4 bytes; those before
//	                                                 yesterday are swept
//
// Records are CBOR (RFC 8949) with the names of their JSON tags. What a later
// version adds is ignored by an earlier one. Every value that is not empty ends
// with a CRC-32C over key and value, but for case-states and exceptions. Message-IDs and
// addresses are chosen by strangers, so their keys are hashes. An ordinary new
// case dirties two pages at random, those of message-ids and of addresses; all
// its other rows go to the end of their buckets, and those that belong together
// into the same pages: taking a page full of small rows apart and putting it
// together again is the larger part of what a commit costs.
//
// # Commits
//
// One goroutine runs the functions of all Updates and commits; those that
// arrive while it syncs share the next commit (commit.go); claims and outcomes of
// deliveries ride along in those of others (patient.go). The file grows by
// allocated space, reserved before a commit begins, so that a full disk is met
// when nothing has been written (grow.go). What a crash leaves behind:
//
//	while the store is made    a draft beside it; made anew at the next start
//	while a body is staged     chunks and a row in staged; swept at the next start
//	before the commit's meta   nothing: the pages written are free
//	after it                   all of it
//	while a delivery is leased a lease of an earlier epoch; Claim hands it out
//	                           as Interrupted
//
// After a commit that failed other than for want of room nobody knows which of
// these it was: the file is closed, read back from the disk, checked and opened
// again before anything else is committed.
//
// # Reading
//
// A view is a snapshot. While one is open the pages it sees are not reused, so
// the file grows: messages are streamed chunk by chunk, each in a view of its
// own, and lists look at a bounded number of rows. Do not open a view within a
// view.
//
// bbolt trusts its pages, so they are checked before it opens a file (pages.go).
// A damaged file is opened for reading only, and a bucket that can't be
// followed is not touched; Verify says what is wrong.
package bolt
