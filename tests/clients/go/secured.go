// Connections with TLS: whom the client trusts, what it shows, and who speaks first.
package main

import (
	"bytes"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// secure starts a server whose tls block goes on with `more`.
func (t *T) secure(more string) *server {
	s := t.start("tls { @tls" + more + " }")
	s.Url = strings.Replace(s.Url, "nats://", "tls://", 1)
	return s
}

func trust() nats.Option { return nats.RootCAs(os.Getenv("CLIENTS_CA")) }

func certificate() nats.Option {
	return nats.ClientCert(os.Getenv("CLIENTS_CERT"), os.Getenv("CLIENTS_KEY"))
}

func (t *T) talk(nc, other *nats.Conn, round string) {
	sub := t.subscribe(other, t.subject(round))
	_, err := other.Subscribe(t.subject(round+".echo"), func(m *nats.Msg) { _ = m.Respond(m.Data) })
	t.ok(err, "subscribe")
	t.flush(other)
	payloads := [][]byte{{}, []byte("hello"), random(16 * 1024), random(int(nc.MaxPayload()))}
	for _, payload := range payloads {
		t.ok(nc.Publish(sub.Subject, payload), "publish")
	}
	for i, payload := range payloads {
		t.check(bytes.Equal(t.next(sub).Data, payload), "payload %d is another", i)
	}
	answer, err := nc.Request(t.subject(round+".echo"), []byte("there?"), patience)
	t.ok(err, "request")
	t.check(string(answer.Data) == "there?", "answer %q", answer.Data)
}

func (t *T) talkOverTls(s *server, options ...nats.Option) {
	back := make(chan struct{}, 10)
	options = append([]nats.Option{trust(), nats.ReconnectWait(50 * time.Millisecond), nats.ReconnectJitter(0, 0), nats.MaxReconnects(-1),
		nats.ReconnectHandler(func(*nats.Conn) { back <- struct{}{} })}, options...)
	nc, other := t.connect(s, options...), t.connect(s, options...)
	t.talk(nc, other, "before")
	var page struct {
		Connections []struct {
			TlsVersion string `json:"tls_version"`
		}
	}
	t.monitoring(s, "/connz", &page)
	t.check(len(page.Connections) == 2, "%d connections", len(page.Connections))
	for _, row := range page.Connections {
		t.check(row.TlsVersion == "1.3", "tls_version %q", row.TlsVersion)
	}
	url := s.Url
	t.restart(s)
	s.Url = url
	for range 2 {
		receive(t, back, "the clients are back")
	}
	t.talk(nc, other, "after")
}

func (t *T) refusedOverTls(s *server, options ...nats.Option) {
	nc, err := nats.Connect(s.Url, append(options, nats.Timeout(patience))...)
	if err == nil {
		nc.Close()
		t.fail("connected")
	}
}

func tlsTrust(t *T) {
	s := t.secure("")
	t.talkOverTls(s)
	t.refusedOverTls(s)
}

func tlsVerify(t *T) {
	s := t.secure(", verify: true")
	t.talkOverTls(s, certificate())
	t.refusedOverTls(s, trust())
}

func tlsFirst(t *T) {
	t.talkOverTls(t.secure(", handshake_first: true"), nats.TLSHandshakeFirst())
}
