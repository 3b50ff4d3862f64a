package main

import (
	"net/netip"
	"path/filepath"
	"time"
)

// Config is everything that can be set. The field comments are the manual in
// short; config.example.yaml is the manual at length, and a test keeps it equal
// to defaults().
//
// The tags: mapstructure is the key; required must not be empty; oneof lists
// the values a text may have, default first; element is the default of a key
// within a list.
type Config struct {
	// Hostname is our own name in greetings, Received fields and Message-IDs.
	Hostname string `mapstructure:"hostname" required:"true"`
	// DataDir holds the store (casegate.db) and the socket of the command line
	// (casegate.sock). On stable storage: a tmpfs is refused by serve.
	DataDir string `mapstructure:"data_dir" required:"true"`
	// Listeners take mail in.
	Listeners []Listener `mapstructure:"listeners"`
	// Limits bound what one client can ask of us.
	Limits Limits `mapstructure:"limits"`
	// Mailboxes are our own addresses; mailbox+anything is the same mailbox.
	Mailboxes []Mailbox `mapstructure:"mailboxes"`
	// Routes say where mail goes on to; the first that fits is taken, at each attempt.
	Routes []Route `mapstructure:"routes"`
	// Console is the HTTP side: health and API.
	Console Console `mapstructure:"console"`
	// Identity is how far a sender is believed.
	Identity Identity `mapstructure:"identity"`
	// Reopen bounds how mail may reopen a resolved case (rule I17).
	Reopen Reopen `mapstructure:"reopen"`
	// DedupeWindow is how long the same mail again is the same mail (rule I1).
	DedupeWindow Duration `mapstructure:"dedupe_window"`
	// Flood bounds new cases by sender address (rule I21), and what a case sends to
	// one address (rule O14).
	Flood Flood `mapstructure:"flood"`
	// Ack is whether a new case is acknowledged to who opened it.
	Ack string `mapstructure:"ack" oneof:"off on"`
	// Acknowledgement is what that mail says; {number} stands for the case's.
	Acknowledgement Acknowledgement `mapstructure:"acknowledgement"`
	// OrphanAuto is where an auto-reply without a case goes (rule I15).
	OrphanAuto string `mapstructure:"orphan_auto" oneof:"exceptions case"`
	// Directory is an outside directory of contacts.
	Directory Directory `mapstructure:"directory"`
	// DNS is asked about senders, for listeners with authentication: check.
	DNS DNS `mapstructure:"dns"`
	// SubjectTag stamps the case's number into subjects, and takes it there for
	// evidence of last resort.
	SubjectTag string `mapstructure:"subject_tag" oneof:"off on"`
	// Outbound is what is done to the answers of the desk (rules O0 to O14).
	Outbound Outbound `mapstructure:"outbound"`
	// DKIM are the keys that sign what leaves (RFC 6376).
	DKIM []DKIMKey `mapstructure:"dkim"`
	// CaseLog is the log of a case.
	CaseLog CaseLog `mapstructure:"case_log"`
	// Retry is how deliveries are tried again.
	Retry Retry `mapstructure:"retry"`
	// Log is the daemon's own log, on standard error.
	Log Log `mapstructure:"log"`

	file   string // where it came from; empty: built in
	places places // where its settings stand there
}

// Listener is one address that takes mail.
type Listener struct {
	// Name is a word of the operator's, for logs and records; unique.
	Name string `mapstructure:"name" required:"true"`
	// Role: inbound takes mail for our mailboxes, outbound is the desk's smarthost.
	Role string `mapstructure:"role" required:"true" noun:"role" oneof:"inbound outbound"`
	// Protocol spoken by the client.
	Protocol string `mapstructure:"protocol" required:"true" noun:"protocol" oneof:"smtp lmtp"`
	// Address is host:port or unix:/path.
	Address Endpoint `mapstructure:"address" required:"true"`
	// Peers may connect, nothing more; empty is everyone, except on an outbound
	// listener off loopback, which needs them. Of no effect on a UNIX socket.
	Peers []Prefix `mapstructure:"peers"`
	// SendAs are the addresses the peers of an outbound listener may put in
	// From; empty is every mailbox. Excludes role inbound.
	SendAs []string `mapstructure:"send_as"`
	// BareNewline: a lone CR or LF is refused (550 5.6.0) or made CRLF.
	BareNewline string `mapstructure:"bare_newline" oneof:"reject normalize" element:"reject"`
	// Trust is what the peers' own words are believed for: authres their
	// Authentication-Results, control_headers their X-Case-* fields, xforward whom
	// they have the mail from, xclient who speaks through them. Needs peers.
	// xclient excludes authres and control_headers.
	Trust []string `mapstructure:"trust" oneof:"authres control_headers xforward xclient"`
	// Authentication of senders (SPF, DKIM, DMARC): off; upstream, as the peers'
	// Authentication-Results say, which needs trust: [authres] and AuthServID;
	// check, by asking the DNS. Excludes role outbound and TrustedForm.
	Authentication string `mapstructure:"authentication" oneof:"off upstream check" element:"off"`
	// AuthServID is the authserv-id (RFC 8601) that the peers' results bear.
	AuthServID string `mapstructure:"authserv_id"`
	// Mode observe archives and explains, and changes nothing.
	Mode string `mapstructure:"mode" oneof:"normal observe" element:"normal"`
	// TrustedForm marks the listener of a web form or portal: its header
	// X-Case-Customer says who the customer is (rule I23), and Reply-To may stand
	// for From. Excludes role outbound, and peers that are everyone.
	TrustedForm bool `mapstructure:"trusted_form"`
	// TLS of the client's side: none, starttls, or implicit from the first byte on.
	// All but none need TLSCert and TLSKey.
	TLS string `mapstructure:"tls" oneof:"none starttls implicit" element:"none"`
	// RequireTLS serves nobody before STARTTLS. Excludes tls: none.
	RequireTLS bool `mapstructure:"require_tls"`
	// TLSCert and TLSKey are PEM files, read again when they change.
	TLSCert string `mapstructure:"tls_cert"`
	TLSKey  string `mapstructure:"tls_key"`
	// ClientCA is a PEM file of who may vouch for agents by certificates (AUTH
	// EXTERNAL). Needs TLS.
	ClientCA string `mapstructure:"client_ca"`
	// Auth lets agents sign in: offer, require or off. Under TLS only, but for
	// AuthWithoutTLS.
	Auth string `mapstructure:"auth" oneof:"offer require off" element:"offer"`
	// AuthWithoutTLS lets agents on this machine sign in in the clear. Needs an
	// address on loopback or a UNIX socket.
	AuthWithoutTLS bool `mapstructure:"auth_without_tls"`
	// ProxyProtocol: the peers are proxies that begin with a PROXY header.
	// Excludes Trust and TrustedForm; outbound it needs auth: require.
	ProxyProtocol bool `mapstructure:"proxy_protocol"`
	// MaxConnections at a time on this listener; more get 421.
	MaxConnections int `mapstructure:"max_connections" element:"16000"`
	// MaxConnectionsPerPeer at a time from one address.
	MaxConnectionsPerPeer int `mapstructure:"max_connections_per_peer" element:"12000"`
}

// Limits bound memory and patience.
type Limits struct {
	// MessageSize is the largest message taken, and what SIZE advertises.
	MessageSize Size `mapstructure:"message_size"`
	// Recipients is the most RCPT TO of one transaction.
	Recipients int `mapstructure:"recipients"`
	// IdleTimeout is the longest silence between two commands.
	IdleTimeout Duration `mapstructure:"idle_timeout"`
	// BodyTimeout is the longest time one body may take as a whole.
	BodyTimeout Duration `mapstructure:"body_timeout"`
}

// Mailbox is one of our own addresses.
type Mailbox struct {
	// Address without a plus; its local part has at most 27 octets, so that
	// mailbox+token fits into 64.
	Address string `mapstructure:"address" required:"true"`
	// Queue that its new cases go to.
	Queue string `mapstructure:"queue" element:"general"`
}

// Route leads mail of one role on.
type Route struct {
	// Role of the listener the mail came in by.
	Role string `mapstructure:"role" required:"true" noun:"role" oneof:"inbound outbound"`
	// RecipientDomain narrows the route to recipients at one domain.
	RecipientDomain string `mapstructure:"recipient_domain"`
	// Sender narrows the route to a MAIL FROM: an address, a domain, .subdomains,
	// or <> for the null reverse-path.
	Sender string `mapstructure:"sender"`
	// Mailbox narrows the route to mail of one of our mailboxes.
	Mailbox string `mapstructure:"mailbox"`
	// NextHop is none (inbound only: keep on the case, forward nowhere),
	// smtp://host:port, smtps://host:port, lmtp://host:port or lmtp:///path.
	NextHop NextHop `mapstructure:"next_hop" required:"true"`
	// NextHops stands instead of NextHop: several, each tried when those before it
	// cannot be reached.
	NextHops []NextHop `mapstructure:"next_hops"`
	// TLS towards the next hop; unset is none on loopback and UNIX sockets and
	// verify elsewhere.
	TLS string `mapstructure:"tls" oneof:"none opportunistic require verify pin"`
	// TLSPin are the SHA-256 of the public keys that tls: pin lets pass.
	TLSPin []string `mapstructure:"tls_pin"`
	// TLSCA is a PEM file of who may vouch for tls: verify; empty is whom the
	// system trusts.
	TLSCA string `mapstructure:"tls_ca"`
	// Auth signs in at the next hop. Needs TLS verify or pin.
	Auth RouteAuth `mapstructure:"auth"`
	// XForward passes on who handed the mail to us, where the next hop takes that.
	XForward bool `mapstructure:"xforward"`
	// MaxConnections to the next hop at once.
	MaxConnections int `mapstructure:"max_connections" element:"10"`
	// MaxPerSecond messages to the next hop; 0 is as many as there are.
	MaxPerSecond int `mapstructure:"max_per_second"`
}

// RouteAuth is how we sign in at a next hop: with a password, or with a token
// that an OAuth server gives us.
type RouteAuth struct {
	// User that we are there; empty: we don't sign in.
	User string `mapstructure:"user"`
	// PasswordFile holds the password. Excludes TokenURL.
	PasswordFile string `mapstructure:"password_file"`
	// TokenURL is where tokens are asked for, with client credentials.
	TokenURL string `mapstructure:"token_url"`
	// ClientID and ClientSecretFile are ours there.
	ClientID         string `mapstructure:"client_id"`
	ClientSecretFile string `mapstructure:"client_secret_file"`
	// Scope to ask for.
	Scope string `mapstructure:"scope"`
}

// Console is the HTTP side.
type Console struct {
	// Address to serve on. Loopback only, as long as there is no sign-in.
	Address Endpoint `mapstructure:"address" required:"true"`
}

// Identity is how far a sender is believed.
type Identity struct {
	// OnUnverified says who a registered contact's address is without an
	// aligned pass: the contact, or a new guest (rule I25).
	OnUnverified string `mapstructure:"on_unverified" oneof:"contact guest"`
}

// Reopen bounds reopening by mail.
type Reopen struct {
	// Window after which a reply no longer reopens its case.
	Window Duration `mapstructure:"window"`
	// PerDay is how often mail may reopen one case within a day.
	PerDay int `mapstructure:"per_day"`
}

// Flood bounds what one address can set off, and what it is sent.
type Flood struct {
	// NewCases by mail from one address, an hour and a day; off is no bound.
	NewCases Rates `mapstructure:"new_cases"`
	// Answers of one case to one address, an hour and a day; more are held. off is
	// no bound (rule O14).
	Answers Rates `mapstructure:"answers"`
}

// Acknowledgement is a mail's text.
type Acknowledgement struct {
	// Subject of the mail.
	Subject string `mapstructure:"subject" required:"true"`
	// Text of the mail, plain.
	Text string `mapstructure:"text" required:"true"`
}

// Directory is an outside directory of contacts, asked over HTTP before each
// decision.
type Directory struct {
	// URL that is asked, with {address} where the e-mail address goes; empty:
	// there is no outside directory.
	URL string `mapstructure:"url"`
	// Timeout of one question; after it the directory counts as unknown (rule I20).
	Timeout Duration `mapstructure:"timeout"`
	// TokenFile holds a bearer token for the directory.
	TokenFile string `mapstructure:"token_file"`
}

// DNS is what look-ups about senders may take.
type DNS struct {
	// Servers that are asked, the next one where one doesn't answer; none are those
	// of the system.
	Servers []DNSServer `mapstructure:"servers"`
	// Queries that one message may cost.
	Queries int `mapstructure:"queries"`
	// Timeout of all look-ups for one message together; what is open then counts
	// as temperror.
	Timeout Duration `mapstructure:"timeout"`
}

// Outbound is what is done to the answers of the desk.
type Outbound struct {
	// Sender that customers see: user keeps the agent's own address, template
	// what was submitted, mailbox puts the case's mailbox.
	Sender string `mapstructure:"sender" oneof:"user template mailbox"`
	// ToPolicy for a contact in To who is not the customer (O6).
	ToPolicy string `mapstructure:"to_policy" oneof:"cc keep drop"`
	// Unresolved addresses are shown bare in Cc, or dropped (O7, O8).
	Unresolved string `mapstructure:"unresolved" oneof:"text drop"`
	// NewRecipients whom nobody knows and who were never on the case (O8); hold
	// keeps the message back until it is released. Excludes Unresolved drop.
	NewRecipients string `mapstructure:"new_recipients" oneof:"allow hold"`
	// UnresolvedOriginals of the very message being answered are added (O9).
	// Excludes Unresolved drop.
	UnresolvedOriginals string `mapstructure:"unresolved_originals" oneof:"off cc bcc"`
	// BCCCurrentUser sends the agent a copy (O10).
	BCCCurrentUser bool `mapstructure:"bcc_current_user"`
	// Uncased mail names no case of ours: handed on, refused, or it opens one for
	// the single outsider it is written to.
	Uncased string `mapstructure:"uncased" oneof:"pass reject create"`
	// OnUnknown is what to do while the outside directory cannot be asked: answer
	// 451, show addresses as text, or go by what is known here. Needs
	// directory.url.
	OnUnknown string `mapstructure:"on_unknown" oneof:"defer text pass"`
	// OnSigned is what to do where a DKIM signature covers a field that is
	// rewritten: strip removes it, hold also keeps the message back.
	OnSigned string `mapstructure:"on_signed" oneof:"strip hold"`
}

// DKIMKey signs mail whose From is in a domain. A domain may have two: one RSA
// and one Ed25519 key (RFC 8463).
type DKIMKey struct {
	// Domain that signs.
	Domain string `mapstructure:"domain" required:"true"`
	// Selector under which the public half is published; each key has its own.
	Selector string `mapstructure:"selector" required:"true"`
	// Key is a file with the private key, for nobody else to read.
	Key string `mapstructure:"key" required:"true"`
	// Subdomains: it signs for those that have no keys of their own, too.
	Subdomains bool `mapstructure:"subdomains"`
}

// CaseLog is the log of a case.
type CaseLog struct {
	// DocumentType of "Case email-out" rows; empty writes no such rows. Needs
	// eml among FileTypes.
	DocumentType string `mapstructure:"document_type"`
	// FileTypes that documents of the log may have.
	FileTypes []string `mapstructure:"file_types"`
}

// Retry is how deliveries are tried again.
type Retry struct {
	// Schedule of pauses after each attempt; the last one repeats.
	Schedule []Duration `mapstructure:"schedule"`
	// Expire is when a delivery is given up and bounced.
	Expire Duration `mapstructure:"expire"`
	// DelayNotice is the age at which the sender hears, once, that a delivery
	// takes long; 0s is never.
	DelayNotice Duration `mapstructure:"delay_notice"`
	// MaxReturned is the size up to which a bounce returns the whole message, if
	// its sender asked for that.
	MaxReturned Size `mapstructure:"max_returned"`
}

// Log is the daemon's own log.
type Log struct {
	// Level and above are written.
	Level string `mapstructure:"level" noun:"level" oneof:"info debug warn error"`
	// Format of a line.
	Format string `mapstructure:"format" noun:"format" oneof:"text json"`
}

// defaults is the configuration without a file, and that of every key a file
// leaves out.
func defaults() *Config {
	const day = Duration(24 * time.Hour)
	return &Config{
		Hostname:     "gw.city.example",
		DataDir:      "./data",
		Listeners:    defaultListeners(),
		Limits:       Limits{MessageSize: 50 << 20, Recipients: 1000, IdleTimeout: Duration(5 * time.Minute), BodyTimeout: Duration(30 * time.Minute)},
		Mailboxes:    []Mailbox{{Address: "311@city.example", Queue: "general"}},
		Routes:       defaultRoutes(),
		Console:      Console{Address: Endpoint{"tcp", "127.0.0.1:8025"}},
		Identity:     Identity{OnUnverified: "contact"},
		Reopen:       Reopen{Window: 30 * day, PerDay: 3},
		DedupeWindow: 5 * day,
		Flood:        Flood{NewCases: Rates{{100, time.Hour}, {500, 24 * time.Hour}}, Answers: Rates{{30, time.Hour}, {100, 24 * time.Hour}}},
		Ack:          "off",
		Acknowledgement: Acknowledgement{
			Subject: "We have your message: case {number}",
			Text:    "Thank you. Your message is case {number}.\nTo add something to it, just answer this mail.\n",
		},
		Directory:  Directory{Timeout: Duration(3 * time.Second)},
		DNS:        DNS{Servers: []DNSServer{}, Queries: 60, Timeout: Duration(5 * time.Second)},
		OrphanAuto: "exceptions",
		SubjectTag: "off",
		Outbound: Outbound{Sender: "user", ToPolicy: "cc", Unresolved: "text", NewRecipients: "allow",
			UnresolvedOriginals: "off", Uncased: "pass", OnUnknown: "defer", OnSigned: "strip"},
		CaseLog: CaseLog{FileTypes: []string{"eml", "msg", "pdf", "txt", "csv", "jpg", "jpeg", "png", "docx", "xlsx", "odt", "ods"}},
		Retry:   Retry{Schedule: defaultSchedule(), Expire: 5 * day, DelayNotice: Duration(4 * time.Hour), MaxReturned: 256 << 10},
		Log:     Log{Level: "info", Format: "text"},
	}
}

func defaultListeners() []Listener {
	peers := []Prefix{{netip.MustParsePrefix("127.0.0.0/8")}}
	listeners := []Listener{
		{Name: "inbound", Role: "inbound", Protocol: "smtp", Address: Endpoint{"tcp", "127.0.0.1:2525"}, Peers: peers},
		{Name: "lmtp", Role: "inbound", Protocol: "lmtp", Address: Endpoint{"tcp", "127.0.0.1:2524"}, Peers: peers},
		{Name: "smarthost", Role: "outbound", Protocol: "smtp", Address: Endpoint{"tcp", "127.0.0.1:2587"}, Peers: peers},
	}
	for i := range listeners {
		fillElement(&listeners[i])
	}
	return listeners
}

func defaultRoutes() []Route {
	routes := []Route{{Role: "inbound"}, {Role: "outbound", NextHop: NextHop{"smtp", Endpoint{"tcp", "127.0.0.1:2526"}}, TLS: "none"}}
	for i := range routes {
		fillElement(&routes[i])
	}
	return routes
}

func defaultSchedule() []Duration {
	const m, h = Duration(time.Minute), Duration(time.Hour)
	return []Duration{m, 5 * m, 15 * m, 30 * m, h, 2 * h, 4 * h}
}

// store is the file of the embedded store.
func (c *Config) store() string { return filepath.Join(c.DataDir, "casegate.db") }

// socket is where a running daemon answers the command line.
func (c *Config) socket() string { return filepath.Join(c.DataDir, "casegate.sock") }
