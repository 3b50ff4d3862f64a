package message

// listScanner reads the entries of an address list, one after the other.
type listScanner struct {
	lexer
	list   []Mailbox
	unread []Span

	entry   entry
	pending Span // phrases without address: perhaps the first half of a name
	group   string
	inGroup bool
}

// entry is what has been seen since the last separator.
type entry struct {
	begun      bool
	start, end int  // all of it, comments included
	core       Span // without the comments around; a comment inside spoils it
	comment    Span // the first one
	angle      Span // what stands between the first angle brackets
	open       int  // where the first bracket stands
	hasAngle   bool
	at         bool // an @ in the text: not (only) a name
	broken     bool // can't be read, whatever else it holds
	loose      bool
}

func (s *listScanner) scan() {
	for {
		e, start := s.next()
		switch e {
		case elemEnd:
			s.finish(elemEnd)
			s.flush()
			return
		case elemBlank:
		case elemComment:
			s.comment(start)
		case elemSpecial:
			s.special(start)
		default:
			s.text(start)
		}
		if len(s.list)+len(s.unread) >= maxEntries {
			s.giveUp()
		}
	}
}

// giveUp makes the rest of the value one unread entry.
func (s *listScanner) giveUp() {
	rest := trimBlank(s.v, Span{s.i, len(s.v)})
	s.i = len(s.v)
	if rest.Start < rest.End {
		s.flush()
		s.unread = append(s.unread, rest)
	}
}

func (s *listScanner) special(start int) {
	switch s.v[start] {
	case ',':
		s.finish(elemSpecial)
	case ';':
		s.finish(elemEnd)
		s.flush()
		s.group, s.inGroup = "", false
	case '<':
		s.angle(start)
	case ':':
		if s.startsGroup() {
			s.openGroup()
			return
		}
		s.text(start)
	case '@':
		s.text(start)
		s.entry.at = true
	}
}

// extend takes the element from start to s.i into the entry.
func (s *listScanner) extend(start int) *entry {
	e := &s.entry
	if !e.begun {
		e.begun, e.start = true, start
	}
	e.end = s.i
	e.loose = e.loose || s.stray
	s.stray = false
	return e
}

func (s *listScanner) comment(start int) {
	e := s.extend(start)
	if e.comment == (Span{}) {
		e.comment = Span{start, s.i}
	}
}

func (s *listScanner) text(start int) {
	e := s.extend(start)
	switch {
	case e.hasAngle:
		e.broken = true // something behind the brackets
	case e.core == (Span{}):
		e.core.Start = start
	}
	e.core.End = s.i
}

// angle reads `<…>`. A second pair makes the entry ambiguous.
func (s *listScanner) angle(start int) {
	end, closed := s.angleEnd()
	inside := Span{s.i, end}
	s.i = end
	if closed {
		s.i++
	}
	e := s.extend(start)
	e.broken = e.broken || e.hasAngle
	e.loose = e.loose || !closed
	if !e.hasAngle {
		e.hasAngle, e.angle, e.open = true, inside, start
	}
}

// startsGroup: a group's name is a phrase (RFC 5322 §3.4), and groups don't
// nest.
func (s *listScanner) startsGroup() bool {
	e := &s.entry
	return !s.inGroup && e.core != (Span{}) && !e.hasAngle && !e.at
}

func (s *listScanner) openGroup() {
	s.flush()
	raw := s.v[s.entry.core.Start:s.entry.core.End]
	if s.group = displayName(raw); s.group == "" {
		s.group = raw // never nameless: that would be no group
	}
	s.inGroup, s.entry = true, entry{}
}

// finish ends the entry at a comma (elemSpecial) or for good (elemEnd).
func (s *listScanner) finish(by element) {
	e := s.entry
	s.entry = entry{}
	switch {
	case e.core == (Span{}) && !e.hasAngle:
		return // nothing, or comments only
	case !e.hasAngle && !e.at:
		s.hold(e)
		return
	case e.hasAngle && e.core != (Span{}) && s.pending != (Span{}):
		e.start = s.pending.Start // Doe, John <a@b.c>
		s.pending = Span{}
	}
	s.flush()
	s.add(e)
}

// hold keeps a phrase without address for the entry that follows.
func (s *listScanner) hold(e entry) {
	if s.pending == (Span{}) {
		s.pending.Start = e.start
	}
	s.pending.End = e.end
}

// flush gives up on the phrases held: they were no part of a name.
func (s *listScanner) flush() {
	if s.pending != (Span{}) {
		s.unread = append(s.unread, s.pending)
		s.pending = Span{}
	}
}

// add reads the address of a finished entry.
func (s *listScanner) add(e entry) {
	at := e.core
	if e.hasAngle {
		at = trimBlank(s.v, e.angle)
	}
	address, loose, ok := readAddress(s.v[at.Start:at.End])
	if !ok || e.broken {
		s.unread = append(s.unread, Span{e.start, e.end})
		return
	}
	s.list = append(s.list, Mailbox{
		Name: s.name(e), Address: address, Group: s.group,
		Start: e.start, End: e.end, AddrStart: at.Start, AddrEnd: at.End,
		Loose: loose || e.loose,
	})
}

// name is the phrase before the brackets, or else the comment.
func (s *listScanner) name(e entry) string {
	if e.hasAngle {
		phrase := trimBlank(s.v, Span{e.start, e.open})
		if name := displayName(s.v[phrase.Start:phrase.End]); name != "" {
			return name
		}
	}
	if e.comment == (Span{}) {
		return ""
	}
	return collapse(Decode(unescape(s.v[e.comment.Start+1 : e.comment.End-1])))
}

// trimBlank takes white space and line ends off both ends of a span.
func trimBlank(v string, s Span) Span {
	for s.Start < s.End && isSpace(v[s.Start]) {
		s.Start++
	}
	for s.End > s.Start && isSpace(v[s.End-1]) {
		s.End--
	}
	return s
}

func isSpace(c byte) bool { return isBlank(c) || c == '\r' || c == '\n' }
