// Package message is a mail as bytes: it finds and scans the header, reads
// what stands in it leniently, and edits it exactly. It never re-encodes and
// knows no cases.
//
//	var f message.Finder                     while the message streams in
//	n, done := f.Feed(chunk)                 how much of it is header
//	h := message.Parse(block)                spans over the block, nothing lost
//	boxes := message.ParseList(field.Value()) the mailboxes of a raw value
//	ed := message.NewEditor(h)               changes these bytes and no others
//
// All input is taken to be hostile. Nothing here panics, every reader takes
// time linear in its input, and what can't be read is kept as it came: a line
// that is no field becomes a junk span, an entry that is no mailbox becomes an
// unread span, and neither costs us its neighbours.
//
// Three promises the tests try to break: header and body concatenated are the
// input; bytes that weren't edited are identical; an address is read only
// where one was written, never out of a name.
package message
