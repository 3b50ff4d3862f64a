package gateway_test

import (
	"testing"

	"github.com/casegate/casegate/gateway"
)

// Mails without a Message-ID, and without a body to tell them apart by, are
// the same mail only if they are the same bytes: all that they say stands in
// their header block. One taken for the other would be answered 250 and lost.
func TestHeaderIsContent(t *testing.T) {
	for name, mails := range map[string][]string{
		"no header":         {"The light is out.\r\n", "The bin is full.\r\n"},
		"other fields only": {"From: ana@x.example\r\nComments: light\r\n\r\n", "From: ana@x.example\r\nComments: bin\r\n\r\n"},
		"text without an empty line before it": {
			"Message-ID: <1@x.example>\r\nFrom: ana@x.example\r\nThe light is out.\r\n",
			"Message-ID: <1@x.example>\r\nFrom: ana@x.example\r\nThe bin is full.\r\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := gateway.NewInbound(desk(t, nil), gateway.Intake{})
			var ids []string
			for _, eml := range []string{mails[0], mails[1], mails[0]} {
				r, err := hand(t, h, gateway.RoleInbound, "ana@x.example", eml, "311@city.example")
				if err != nil {
					t.Fatal(err)
				}
				ids = append(ids, r.ID)
			}
			if ids[0] == ids[1] {
				t.Error("another mail was taken for a duplicate")
			}
			if ids[0] != ids[2] {
				t.Error("the same mail again was taken for another")
			}
		})
	}
}
