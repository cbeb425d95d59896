// The life of a connection: who may connect, what it learns of the server, and what it sees when either side goes.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
)

// rawConn speaks the protocol by hand where a client library would never misbehave as the test needs it to.
type rawConn struct {
	t      *T
	conn   net.Conn
	reader *bufio.Reader
}

// dialRaw connects and reads INFO. A receive buffer size of 0 leaves the system's.
func (t *T) dialRaw(s *server, receiveBufferBytes int) *rawConn {
	dialer := net.Dialer{Timeout: patience}
	if receiveBufferBytes > 0 {
		dialer.Control = func(_, _ string, c syscall.RawConn) error {
			return c.Control(func(fd uintptr) {
				_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, receiveBufferBytes)
			})
		}
	}
	conn, err := dialer.Dial("tcp", net.JoinHostPort(s.Host, strconv.Itoa(s.Port)))
	t.ok(err, "connect a raw socket")
	t.cleanup(func() { _ = conn.Close() })
	raw := &rawConn{t, conn, bufio.NewReader(conn)}
	raw.expect("INFO ")
	return raw
}

func (raw *rawConn) send(text string) {
	_, err := io.WriteString(raw.conn, text)
	raw.t.ok(err, "write to the raw socket")
}

func (raw *rawConn) expect(prefix string) {
	_ = raw.conn.SetReadDeadline(time.Now().Add(patience))
	line, err := raw.reader.ReadString('\n')
	raw.t.ok(err, "wait for "+prefix)
	raw.t.check(strings.HasPrefix(line, prefix), "%q instead of %q", line, prefix)
}

// expectClosed reads what is left and then the end; a reset is an end as well.
func (raw *rawConn) expectClosed() {
	_ = raw.conn.SetReadDeadline(time.Now().Add(patience))
	_, err := io.Copy(io.Discard, raw.reader)
	var timeout net.Error
	raw.t.check(!errors.As(err, &timeout) || !timeout.Timeout(), "the server keeps the connection open")
}

func drain(t *T) {
	sender := t.connect(plain)

	// A subscription: what was sent is handled, however slowly, and nothing after it.
	receiver := t.connect(plain)
	var handled atomic.Int32
	subject := t.subject("sub")
	sub, err := receiver.Subscribe(subject, func(*nats.Msg) {
		time.Sleep(time.Millisecond)
		handled.Add(1)
	})
	t.ok(err, "subscribe")
	t.flush(receiver)
	for i := 0; i < 100; i++ {
		t.publish(sender, subject, "x")
	}
	t.flush(sender)
	t.ok(sub.Drain(), "drain the subscription")
	t.eventually("the drained subscription is gone", func() bool { return !sub.IsValid() })
	t.check(handled.Load() == 100, "%d of 100 messages were handled", handled.Load())
	t.publish(sender, subject, "late")
	t.flush(sender)
	t.flush(receiver)
	t.check(handled.Load() == 100, "a message came after the drain")

	// A connection: its subscriptions first, then what it has still to publish, then it closes.
	closed := make(chan struct{})
	var reports atomic.Int32
	worker := t.connect(plain, nats.ClosedHandler(func(*nats.Conn) { close(closed) }),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) { reports.Add(1) }))
	results := t.subscribe(sender, t.subject("results"))
	_, err = worker.Subscribe(t.subject("jobs"), func(m *nats.Msg) {
		time.Sleep(time.Millisecond)
		_ = worker.Publish(t.subject("results"), m.Data)
	})
	t.ok(err, "subscribe")
	t.flush(worker)
	for i := 0; i < 100; i++ {
		t.publish(sender, t.subject("jobs"), strconv.Itoa(i))
	}
	t.flush(sender)
	t.ok(worker.Drain(), "drain the connection")
	for i := 0; i < 100; i++ {
		t.check(string(t.next(results).Data) == strconv.Itoa(i), "result %d is missing", i)
	}
	receive(t, closed, "the drained connection closed")
	t.check(reports.Load() == 0, "the drain reported %d errors", reports.Load())
	t.isError(worker.Publish(t.subject("jobs"), nil), nats.ErrConnectionClosed, "publish after the drain")
	_, err = sender.Request(t.subject("jobs"), nil, patience)
	t.isError(err, nats.ErrNoResponders, "request to the drained worker")
}

func reconnect(t *T) {
	s := t.start("")
	disconnected, reconnected := make(chan error, 10), make(chan struct{}, 10)
	options := []nats.Option{
		nats.ReconnectWait(50 * time.Millisecond), nats.ReconnectJitter(0, 0), nats.MaxReconnects(-1),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { disconnected <- err }),
		nats.ReconnectHandler(func(*nats.Conn) { reconnected <- struct{}{} }),
	}
	nc := t.connect(s, options...)
	literal, pattern := t.subscribe(nc, "news.today"), t.subscribe(nc, "news.>")
	member, err := nc.QueueSubscribeSync("jobs.*", "workers")
	t.ok(err, "queue subscribe")
	limited := t.subscribe(nc, "limited")
	t.ok(limited.AutoUnsubscribe(5), "auto-unsubscribe")
	_, err = nc.Subscribe("echo", func(m *nats.Msg) { _ = m.Respond(m.Data) })
	t.ok(err, "subscribe")
	t.publish(nc, "limited", "0")
	t.publish(nc, "limited", "1")
	t.next(limited)
	t.next(limited)
	id := nc.ConnectedServerId()

	for round := 0; round < 2; round++ {
		t.restart(s)
		receive(t, disconnected, "the client noticed that the server is gone")
		receive(t, reconnected, "the client is back")
		t.check(nc.ConnectedServerId() != id, "the restarted server has the old server id")
		id = nc.ConnectedServerId()

		sender := t.connect(s)
		t.publish(sender, "news.today", "again")
		t.publish(sender, "jobs.one", "again")
		t.flush(sender)
		t.check(string(t.next(literal).Data) == "again", "the literal subscription was not restored")
		t.check(string(t.next(pattern).Data) == "again", "the wildcard subscription was not restored")
		t.check(string(t.next(member).Data) == "again", "the queue subscription was not restored")
		answer, err := sender.Request("echo", []byte("there?"), patience)
		t.ok(err, "request to the reconnected client")
		t.check(string(answer.Data) == "there?", "answer %q", answer.Data)
		_, err = nc.Request("echo", []byte("me?"), patience)
		t.ok(err, "request of the reconnected client")
		t.expectNothing(nc, literal)
	}
	t.check(nc.Stats().Reconnects == 2, "%d reconnects counted", nc.Stats().Reconnects)

	// The client asks for what is left of the five.
	sender := t.connect(s)
	for i := 0; i < 10; i++ {
		t.publish(sender, "limited", "x")
	}
	t.flush(sender)
	t.flush(nc)
	for i := 0; i < 3; i++ {
		t.next(limited)
	}
	_, err = limited.NextMsg(50 * time.Millisecond)
	t.check(err != nil, "a message beyond the maximum after the reconnect")
}

// What was published while the server was away is kept by the client and arrives once it is back.
func reconnectBuffered(t *T) {
	s := t.start("")
	disconnected := make(chan struct{}, 10)
	nc := t.connect(s, nats.ReconnectWait(50*time.Millisecond), nats.ReconnectJitter(0, 0), nats.MaxReconnects(-1),
		nats.DisconnectErrHandler(func(*nats.Conn, error) { disconnected <- struct{}{} }))
	sub := t.subscribe(nc, "kept")
	t.flush(nc)
	restarted := make(chan error, 1)
	go func() {
		restarted <- control("/restart", map[string]any{"id": s.Id, "down_ms": 1000}, &server{})
	}()
	receive(t, disconnected, "the client noticed that the server is gone")
	for i := 0; i < 100; i++ {
		t.publish(nc, "kept", strconv.Itoa(i))
	}
	t.ok(receive(t, restarted, "the server is back"), "restart the server")
	for i := 0; i < 100; i++ {
		m := t.next(sub)
		t.check(string(m.Data) == strconv.Itoa(i), "message %q instead of %d", m.Data, i)
	}
}

func slowConsumer(t *T) {
	// Limits far below the defaults, so that little traffic fills them, whatever the system's socket buffers take.
	s := t.start("max_pending: 1MB\nmax_payload: 64KB\nwrite_deadline: \"5s\"\n")
	stuck := t.dialRaw(s, 4096)
	stuck.send("CONNECT {\"verbose\":false,\"name\":\"stuck\"}\r\nSUB flood 1\r\nPING\r\n")
	stuck.expect("PONG")

	healthy, sender := t.connect(s), t.connect(s)
	sub := t.subscribe(healthy, "flood")
	t.flush(healthy)
	count := func() int {
		var page struct {
			SlowConsumers int `json:"slow_consumers"`
		}
		t.monitoring(s, "/varz", &page)
		return page.SlowConsumers
	}
	t.check(count() == 0, "slow consumers before anything was sent")
	payload := random(32 * 1024)
	// The healthy one is never more than 512 KiB behind, so whatever it would miss is the server's fault.
	sent := 0
	for deadline := time.Now().Add(2 * patience); count() == 0; {
		t.check(time.Now().Before(deadline), "no slow consumer after %d messages of 32 KiB", sent)
		for i := 0; i < 16; i++ {
			payload[0] = byte(sent)
			t.ok(sender.Publish("flood", payload), "publish")
			sent++
		}
		for i := sent - 16; i < sent; i++ {
			m := t.next(sub)
			t.check(len(m.Data) == len(payload) && m.Data[0] == byte(i), "the healthy subscriber got another message than %d", i)
		}
	}
	t.check(count() == 1, "%d slow consumers instead of one", count())
	stuck.expectClosed()
	t.publish(sender, "flood", "after")
	t.check(string(t.next(sub).Data) == "after", "the healthy subscriber missed the message after the flood")
	t.expectNothing(healthy, sub)

	type closedConnection struct{ Name, Reason string }
	var page struct{ Connections []closedConnection }
	t.eventually("/connz lists the closed connection", func() bool {
		t.monitoring(s, "/connz?state=closed", &page)
		for _, c := range page.Connections {
			if c.Name == "stuck" {
				t.check(strings.HasPrefix(c.Reason, "Slow Consumer"), "it was closed for %q", c.Reason)
				return true
			}
		}
		return false
	})
}

// refused expects a connection attempt to fail with the client's authorization error.
func (t *T) refused(s *server, what string, options ...nats.Option) {
	nc, err := nats.Connect(s.Url, append(options, nats.Timeout(patience))...)
	if err == nil {
		nc.Close()
		t.fail("%s was let in", what)
	}
	t.isError(err, nats.ErrAuthorization, what)
}

func (t *T) works(nc *nats.Conn) {
	sub := t.subscribe(nc, "works")
	t.publish(nc, "works", "yes")
	t.check(string(t.next(sub).Data) == "yes", "a message went astray")
}

// bcrypt of "s3cret", at the lowest cost.
const bcryptSecret = "$2b$04$abcdefghijklmnopqrstuuLZYjhNQAOdpbzt4WxWlUHjv1wsyH5DG"

func authUserPass(t *T) {
	s := t.start("", "--user", "bob", "--pass", "s3cret")
	nc := t.connect(s, nats.UserInfo("bob", "s3cret"))
	t.works(nc)
	t.check(nc.AuthRequired(), "INFO does not say that authorization is required")

	inUrl, err := nats.Connect(fmt.Sprintf("nats://bob:s3cret@%s:%d", s.Host, s.Port), nats.Timeout(patience))
	t.ok(err, "connect with user and password in the url")
	t.cleanup(inUrl.Close)
	t.works(inUrl)

	several := t.start("authorization { users: [ { user: alice, password: \"wonder land\" }, { user: bob, password: s3cret } ] }")
	t.works(t.connect(several, nats.UserInfo("alice", "wonder land")))
	t.works(t.connect(several, nats.UserInfo("bob", "s3cret")))

	hashed := t.start("authorization { user: bob, password: \"" + bcryptSecret + "\" }")
	t.works(t.connect(hashed, nats.UserInfo("bob", "s3cret")))
}

func authToken(t *T) {
	s := t.start("", "--auth", "s3cret")
	t.works(t.connect(s, nats.Token("s3cret")))
	inUrl, err := nats.Connect(fmt.Sprintf("nats://s3cret@%s:%d", s.Host, s.Port), nats.Timeout(patience))
	t.ok(err, "connect with the token in the url")
	t.cleanup(inUrl.Close)
	t.works(inUrl)
	t.works(t.connect(t.start("authorization { token: \"t0k en\" }"), nats.Token("t0k en")))
}

func authFailure(t *T) {
	s := t.start("", "--user", "bob", "--pass", "s3cret")
	t.refused(s, "a wrong password", nats.UserInfo("bob", "secret"))
	t.refused(s, "an empty password", nats.UserInfo("bob", ""))
	t.refused(s, "a wrong user", nats.UserInfo("Bob", "s3cret"))
	t.refused(s, "a token instead of a user", nats.Token("s3cret"))
	t.refused(s, "nobody")
	t.works(t.connect(s, nats.UserInfo("bob", "s3cret")))

	token := t.start("", "--auth", "s3cret")
	t.refused(token, "a wrong token", nats.Token("s3cre"))
	t.refused(token, "a user instead of a token", nats.UserInfo("bob", "s3cret"))
	t.refused(token, "no token")
	t.works(t.connect(token, nats.Token("s3cret")))

	hashed := t.start("authorization { user: bob, password: \"" + bcryptSecret + "\" }")
	t.refused(hashed, "a wrong password against a hash", nats.UserInfo("bob", "secret"))
	t.refused(hashed, "the hash itself", nats.UserInfo("bob", bcryptSecret))
}

func permissionsViolation(t *T) {
	s := t.start(`authorization {
  users: [
    { user: bob, password: pw, permissions: {
        publish: { allow: ["open.>", "_INBOX.>"], deny: "open.secret" }
        subscribe: { allow: ["open.>", "_INBOX.>"], deny: ["open.hidden.*"] } } }
    { user: boss, password: pw }
  ]
}`)
	reports := make(chan error, 100)
	bob := t.connect(s, nats.UserInfo("bob", "pw"), nats.PermissionErrOnSubscribe(true),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { reports <- err }))
	boss := t.connect(s, nats.UserInfo("boss", "pw"))
	everything := t.subscribe(boss, ">")
	t.flush(boss)

	violation := func(subject, operation string) {
		err := receive(t, reports, "the error for "+operation+" "+subject)
		t.isError(err, nats.ErrPermissionViolation, operation+" "+subject)
		want := fmt.Sprintf("Permissions Violation for %s to %q", operation, subject)
		t.check(strings.Contains(strings.ToLower(err.Error()), strings.ToLower(want)), "error %q instead of %q", err, want)
	}
	for _, subject := range []string{"closed", "open", "open.secret", "closed.x"} {
		t.publish(bob, subject, "x")
		violation(subject, "Publish")
	}
	for _, subject := range []string{"closed", "open", ">", "*.>", "open.hidden.x", "open.hidden.*"} {
		sub := t.subscribe(bob, subject)
		violation(subject, "Subscription")
		_, err := sub.NextMsg(patience)
		t.isError(err, nats.ErrPermissionViolation, "next message of the refused subscription to "+subject)
	}
	// Overlap with a denied pattern is no violation: the subscription holds, denied subjects are kept from it.
	wide := t.subscribe(bob, "open.>")
	t.flush(bob)
	t.expectNothing(boss, everything)
	t.publish(boss, "open.hidden.x", "x")
	t.publish(boss, "open.x", "allowed")
	t.check(string(t.next(wide).Data) == "allowed", "a denied subject reached the wider subscription")
	t.next(everything)
	t.next(everything)

	t.publish(bob, "open.y", "still there")
	t.check(string(t.next(everything).Data) == "still there", "the connection did not survive")
	t.check(len(reports) == 0, "%d errors too many", len(reports))
	t.check(bob.IsConnected() && bob.Stats().Reconnects == 0, "the connection did not survive")
}

var versionShape = regexp.MustCompile(`^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$`)

func serverInfo(t *T) {
	nc, other := t.connect(plain), t.connect(plain)
	t.check(versionShape.MatchString(nc.ConnectedServerVersion()), "version %q", nc.ConnectedServerVersion())
	t.check(len(nc.ConnectedServerId()) == 56 && nc.ConnectedServerId()[0] == 'N', "server id %q", nc.ConnectedServerId())
	t.check(nc.ConnectedServerName() == nc.ConnectedServerId(), "server name %q differs from the id", nc.ConnectedServerName())
	t.check(nc.MaxPayload() == 1<<20, "max_payload %d", nc.MaxPayload())
	t.check(!nc.AuthRequired() && !nc.TLSRequired(), "INFO asks for authorization or TLS")
	id, err := nc.GetClientID()
	t.ok(err, "client id")
	otherId, err := other.GetClientID()
	t.ok(err, "client id")
	t.check(id > 0 && otherId > 0 && id != otherId, "client ids %d and %d", id, otherId)
	ip, err := nc.GetClientIP()
	t.ok(err, "client ip")
	t.check(ip.String() == plain.ClientIp, "client ip %v", ip)
	t.check(len(nc.DiscoveredServers()) == 0, "a lone server advertises %v", nc.DiscoveredServers())

	named := t.start("server_name: blue\nmax_payload: 4KB\n")
	blue := t.connect(named)
	t.check(blue.ConnectedServerName() == "blue", "server name %q", blue.ConnectedServerName())
	t.check(blue.MaxPayload() == 4096, "max_payload %d", blue.MaxPayload())
}

// What the client tells the server shows up in its monitoring.
func monitored(t *T) {
	nc := t.connect(plain, nats.Name("watch me"))
	sub := t.subscribe(nc, t.subject("x"))
	for i := 0; i < 5; i++ {
		t.publish(nc, t.subject("x"), "12345")
		t.next(sub)
	}
	id, err := nc.GetClientID()
	t.ok(err, "client id")
	var page struct {
		Connections []struct {
			Cid           uint64
			Name          string
			Lang          string
			Version       string
			Ip            string
			Port          int
			Subscriptions int
			InMsgs        int      `json:"in_msgs"`
			OutMsgs       int      `json:"out_msgs"`
			InBytes       int      `json:"in_bytes"`
			OutBytes      int      `json:"out_bytes"`
			List          []string `json:"subscriptions_list"`
		}
	}
	t.monitoring(plain, fmt.Sprintf("/connz?cid=%d&subs=1", id), &page)
	t.check(len(page.Connections) == 1, "%d connections with id %d", len(page.Connections), id)
	c := page.Connections[0]
	t.check(c.Cid == id && c.Name == "watch me" && c.Lang == "go" && c.Version == nats.Version, "connection %+v", c)
	t.check(c.InMsgs == 5 && c.OutMsgs == 5 && c.InBytes == 25 && c.OutBytes == 25, "counted %+v", c)
	t.check(c.Subscriptions == 1 && len(c.List) == 1 && c.List[0] == t.subject("x"), "subscriptions %+v", c)
	t.check(nc.LocalAddr() == fmt.Sprintf("%s:%d", c.Ip, c.Port), "%s is listed as %s:%d", nc.LocalAddr(), c.Ip, c.Port)
}

func lameDuck(t *T) {
	s := t.start("lame_duck_duration: \"30s\"\nlame_duck_grace_period: \"500ms\"\n")
	told, disconnected := make(chan struct{}, 1), make(chan struct{}, 1)
	nc := t.connect(s, nats.NoReconnect(),
		nats.LameDuckModeHandler(func(*nats.Conn) { told <- struct{}{} }),
		nats.DisconnectErrHandler(func(*nats.Conn, error) { disconnected <- struct{}{} }))
	// The server sends asynchronous INFO only to those that have had a PONG.
	t.flush(nc)
	t.signal(s, "USR2")
	receive(t, told, "the client was told of lame duck mode")
	if late, err := nats.Connect(s.Url, nats.Timeout(patience)); err == nil {
		late.Close()
		t.fail("the lame duck took a new connection")
	}
	receive(t, disconnected, "the lame duck let its last client go")
}

func callbacks(t *T) {
	s := t.start("")
	events := make(chan string, 10)
	watch := func(extra ...nats.Option) []nats.Option {
		return append(extra,
			nats.ConnectHandler(func(*nats.Conn) { events <- "connected" }),
			nats.DisconnectErrHandler(func(*nats.Conn, error) { events <- "disconnected" }),
			nats.ClosedHandler(func(*nats.Conn) { events <- "closed" }))
	}
	expect := func(names ...string) {
		for _, name := range names {
			got := receive(t, events, "callback "+name)
			t.check(got == name, "callback %s instead of %s", got, name)
		}
	}
	nc := t.connect(s, watch()...)
	expect("connected")
	nc.Close()
	expect("disconnected", "closed")
	t.isError(nc.Publish("x", nil), nats.ErrConnectionClosed, "publish on a closed connection")

	// The server goes in an orderly way and does not come back.
	nc = t.connect(s, watch(nats.NoReconnect())...)
	expect("connected")
	t.flush(nc)
	var ended struct {
		ExitCode int `json:"exit_code"`
	}
	t.ok(control("/stop", map[string]any{"id": s.Id, "signal": "INT"}, &ended), "stop the server")
	expect("disconnected", "closed")
	t.check(nc.IsClosed(), "status %v", nc.Status())
	_, err := nats.Connect(s.Url, nats.Timeout(patience))
	t.isError(err, nats.ErrNoServers, "connect to the stopped server")
}

// A server that pings: the client answers, and nobody is cut off.
func keepAlive(t *T) {
	s := t.start("ping_interval: \"100ms\"\nping_max: 2\n")
	nc := t.connect(s, nats.PingInterval(100*time.Millisecond), nats.MaxPingsOutstanding(5))
	silent := t.dialRaw(s, 0)
	silent.send("CONNECT {\"verbose\":false}\r\nPING\r\n")
	silent.expect("PONG")
	// The one that never answers is the clock: it has gone through ping_max pings.
	silent.expectClosed()
	t.check(nc.IsConnected() && nc.Stats().Reconnects == 0, "a client that answers pings was cut off")
	t.works(nc)
}
