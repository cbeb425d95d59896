// Messages between connected clients: what the subject matches, who of a group gets it, in which order, how large it may be.
package main

import (
	"bytes"
	"fmt"
	"math/rand"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

func publishSubscribe(t *T) {
	receiver, sender := t.connect(plain), t.connect(plain)
	subject := t.subject("greeting")
	sub := t.subscribe(receiver, subject)
	t.flush(receiver)
	for _, payload := range []string{"Hello", "", "\x00\r\n\xff", "PUB other 3\r\nabc\r\n"} {
		t.publish(sender, subject, payload)
		m := t.next(sub)
		t.check(m.Subject == subject, "subject %q instead of %q", m.Subject, subject)
		t.check(string(m.Data) == payload, "payload %q instead of %q", m.Data, payload)
		t.check(m.Reply == "", "reply %q where none was given", m.Reply)
	}
	t.flush(sender)
	t.expectNothing(receiver, sub)

	// Two subscriptions of one connection to one subject are two receivers.
	twin := t.subscribe(receiver, subject)
	t.flush(receiver)
	t.publish(sender, subject, "both")
	t.check(string(t.next(sub).Data) == "both" && string(t.next(twin).Data) == "both", "one of two equal subscriptions missed it")

	t.ok(sub.Unsubscribe(), "unsubscribe")
	t.flush(receiver)
	t.publish(sender, subject, "one left")
	t.check(string(t.next(twin).Data) == "one left", "the remaining subscription missed it")
	t.flush(sender)
	t.expectNothing(receiver, twin)
}

// matches publishes on every subject and says on which of them the pattern's subscription got it, in order.
func matches(t *T, pattern string, subjects ...string) string {
	receiver, sender := t.connect(plain), t.connect(plain)
	sub := t.subscribe(receiver, pattern)
	t.flush(receiver)
	for _, subject := range subjects {
		t.publish(sender, subject, subject)
	}
	t.flush(sender)
	t.flush(receiver)
	got := ""
	for {
		m, err := sub.NextMsg(time.Millisecond)
		if err != nil {
			return got
		}
		t.check(m.Subject == string(m.Data), "published on %q, arrived on %q", m.Data, m.Subject)
		got += m.Subject + " "
	}
}

func wildcardStar(t *T) {
	a, b := t.subject("a"), t.subject("b")
	got := matches(t, a+".*", a, a+".x", a+".x.y", a+".y", b+".x", a+".$", a+"x.y")
	t.check(got == fmt.Sprintf("%s.x %s.y %s.$ ", a, a, a), "a.* got %q", got)
	got = matches(t, a+".*.end", a+".end", a+".x.end", a+".x.y.end", a+".x.ends", a+".y.end")
	t.check(got == fmt.Sprintf("%s.x.end %s.y.end ", a, a), "a.*.end got %q", got)
	got = matches(t, t.subject("*.*"), a, a+".x", b+".y", b+".y.z")
	t.check(got == fmt.Sprintf("%s.x %s.y ", a, b), "*.* got %q", got)
}

func wildcardFull(t *T) {
	a, b := t.subject("a"), t.subject("b")
	got := matches(t, a+".>", a, a+".x", a+".x.y", a+".x.y.z.1.2.3", b+".x")
	t.check(got == fmt.Sprintf("%s.x %s.x.y %s.x.y.z.1.2.3 ", a, a, a), "a.> got %q", got)
	got = matches(t, t.subject("*.>"), a, a+".x", b+".x.y")
	t.check(got == fmt.Sprintf("%s.x %s.x.y ", a, b), "*.> got %q", got)
}

func queueGroup(t *T) {
	const members, messages = 4, 1000
	subject := t.subject("work")
	var mu sync.Mutex
	served := map[string]int{}
	byMember := make([]int, members)
	total := 0
	for i := 0; i < members; i++ {
		nc := t.connect(plain)
		_, err := nc.QueueSubscribe(subject, "workers", func(m *nats.Msg) {
			mu.Lock()
			served[string(m.Data)]++
			byMember[i]++
			total++
			mu.Unlock()
		})
		t.ok(err, "queue subscribe")
		t.flush(nc)
	}
	watcher := t.connect(plain)
	all := t.subscribe(watcher, subject)
	other, err := watcher.QueueSubscribeSync(t.subject("*"), "auditors")
	t.ok(err, "queue subscribe")
	t.flush(watcher)

	sender := t.connect(plain)
	for i := 0; i < messages; i++ {
		t.publish(sender, subject, strconv.Itoa(i))
	}
	for i := 0; i < messages; i++ {
		want := strconv.Itoa(i)
		t.check(string(t.next(all).Data) == want, "the plain subscriber missed %s", want)
		t.check(string(t.next(other).Data) == want, "the other group missed %s", want)
	}
	t.eventually("the group handled every message", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return total >= messages
	})
	t.flush(sender)
	t.expectNothing(watcher, all)
	mu.Lock()
	defer mu.Unlock()
	for i := 0; i < messages; i++ {
		t.check(served[strconv.Itoa(i)] == 1, "message %d went to %d members", i, served[strconv.Itoa(i)])
	}
	for i, n := range byMember {
		t.check(n > 0, "member %d got nothing: %v", i, byMember)
	}
}

// The name alone makes a group: members may subscribe to different subjects, and share what matches several of them.
func queueGroupOverlap(t *T) {
	const messages = 300
	subjects := []string{t.subject("work.one"), t.subject("work.*"), t.subject(">")}
	clients, members := make([]*nats.Conn, len(subjects)), make([]*nats.Subscription, len(subjects))
	for i, subject := range subjects {
		clients[i] = t.connect(plain)
		member, err := clients[i].QueueSubscribeSync(subject, "workers")
		t.ok(err, "queue subscribe")
		t.flush(clients[i])
		members[i] = member
	}
	sender := t.connect(plain)
	for i := 0; i < messages; i++ {
		t.publish(sender, t.subject("work.one"), strconv.Itoa(i))
	}
	t.publish(sender, t.subject("work.two"), "not for the first")
	t.flush(sender)
	byMember, total := make([]int, len(subjects)), 0
	for i, member := range members {
		t.flush(clients[i])
		pending, _, err := member.Pending()
		t.ok(err, "pending")
		byMember[i] = pending
		total += pending
	}
	t.check(total == messages+1, "%d messages made %d deliveries: %v", messages+1, total, byMember)
	for i, n := range byMember {
		t.check(n > 0, "member %d got nothing: %v", i, byMember)
	}
}

// Members that come and go while messages flow: every message still goes to exactly one.
func queueGroupChanging(t *T) {
	subject := t.subject("work")
	sender := t.connect(plain)
	got := make(chan string, 10000)
	deliver := func(m *nats.Msg) { got <- string(m.Data) }
	stays := t.connect(plain)
	_, err := stays.QueueSubscribe(subject, "workers", deliver)
	t.ok(err, "queue subscribe")
	t.flush(stays)
	const rounds, each = 20, 50
	for round := 0; round < rounds; round++ {
		guest := t.connect(plain)
		_, err := guest.QueueSubscribe(subject, "workers", deliver)
		t.ok(err, "queue subscribe")
		t.flush(guest)
		for i := 0; i < each; i++ {
			t.publish(sender, subject, strconv.Itoa(round*each+i))
		}
		// A drained member hands over what it had been given before it leaves.
		t.ok(guest.Drain(), "drain")
		t.eventually("the guest left", guest.IsClosed)
	}
	seen := map[string]bool{}
	for i := 0; i < rounds*each; i++ {
		m := receive(t, got, fmt.Sprintf("message %d of %d", i, rounds*each))
		t.check(!seen[m], "message %s was handled twice", m)
		seen[m] = true
	}
}

func echo(t *T, subject string) {
	nc := t.connect(plain)
	_, err := nc.QueueSubscribe(subject, "echo", func(m *nats.Msg) { _ = m.Respond(m.Data) })
	t.ok(err, "subscribe")
	t.flush(nc)
}

func requests(t *T, nc *nats.Conn, callers, each int) {
	subject := t.subject("echo")
	echo(t, subject)
	echo(t, subject)
	problems := make(chan string, callers)
	var running sync.WaitGroup
	for caller := 0; caller < callers; caller++ {
		running.Add(1)
		go func() {
			defer running.Done()
			for i := 0; i < each; i++ {
				question := fmt.Sprintf("%d/%d", caller, i)
				answer, err := nc.Request(subject, []byte(question), patience)
				if err != nil {
					problems <- fmt.Sprintf("request %s: %v", question, err)
					return
				}
				if string(answer.Data) != question {
					problems <- fmt.Sprintf("request %s was answered %q", question, answer.Data)
					return
				}
			}
		}()
	}
	running.Wait()
	if len(problems) > 0 {
		t.fail("%s (and %d more)", <-problems, len(problems))
	}
}

func requestInbox(t *T) {
	nc := t.connect(plain, nats.UseOldRequestStyle())
	requests(t, nc, 20, 10)
	t.eventually("no inbox subscription is left", func() bool { return nc.NumSubscriptions() == 0 })
}

func requestMux(t *T) {
	nc := t.connect(plain)
	requests(t, nc, 100, 20)
	t.check(nc.NumSubscriptions() == 1, "%d subscriptions instead of the one shared inbox", nc.NumSubscriptions())
}

// Several answers to one request: the asker's inbox is a subject like any other.
func requestMany(t *T) {
	subject := t.subject("who")
	const responders = 5
	for i := 0; i < responders; i++ {
		nc := t.connect(plain)
		_, err := nc.Subscribe(subject, func(m *nats.Msg) { _ = m.Respond([]byte(strconv.Itoa(i))) })
		t.ok(err, "subscribe")
		t.flush(nc)
	}
	nc := t.connect(plain)
	inbox := nc.NewInbox()
	answers := t.subscribe(nc, inbox)
	t.ok(nc.PublishRequest(subject, inbox, nil), "publish request")
	seen := map[string]bool{}
	for i := 0; i < responders; i++ {
		seen[string(t.next(answers).Data)] = true
	}
	t.check(len(seen) == responders, "answers of %d responders instead of %d", len(seen), responders)
	t.expectNothing(nc, answers)
}

func noResponders(t *T) {
	for _, style := range [][]nats.Option{nil, {nats.UseOldRequestStyle()}} {
		nc := t.connect(plain, style...)
		began := time.Now()
		_, err := nc.Request(t.subject("nobody"), []byte("anyone?"), 2*patience)
		t.isError(err, nats.ErrNoResponders, "request without a responder")
		t.check(time.Since(began) < patience, "the answer took %v", time.Since(began))

		// A responder that has left counts as none; one that stays silent is a timeout, not a 503.
		sub := t.subscribe(nc, t.subject("silent"))
		_, err = nc.Request(t.subject("silent"), nil, 100*time.Millisecond)
		t.isError(err, nats.ErrTimeout, "request to a silent responder")
		t.ok(sub.Unsubscribe(), "unsubscribe")
		t.flush(nc)
		_, err = nc.Request(t.subject("silent"), nil, 2*patience)
		t.isError(err, nats.ErrNoResponders, "request after the responder left")
	}
}

func headers(t *T) {
	receiver, sender := t.connect(plain), t.connect(plain)
	t.check(sender.HeadersSupported(), "the server does not offer headers")
	subject := t.subject("note")
	sub := t.subscribe(receiver, subject)
	t.flush(receiver)
	for _, payload := range []string{"with payload", ""} {
		m := nats.NewMsg(subject)
		m.Data = []byte(payload)
		m.Reply = "answers.here"
		m.Header.Set("Color", "green")
		m.Header.Add("Trace", "one")
		m.Header.Add("Trace", "two, three")
		m.Header.Set("lower-case", "ünïcode: kept")
		t.ok(sender.PublishMsg(m), "publish with headers")
		got := t.next(sub)
		t.check(string(got.Data) == payload, "payload %q instead of %q", got.Data, payload)
		t.check(got.Reply == "answers.here", "reply %q", got.Reply)
		t.check(fmt.Sprint(got.Header) == fmt.Sprint(m.Header), "headers %v instead of %v", got.Header, m.Header)
	}
	t.publish(sender, subject, "bare")
	got := t.next(sub)
	t.check(len(got.Header) == 0 && string(got.Data) == "bare", "a message without headers came with %v", got.Header)

	echo(t, t.subject("echo"))
	question := nats.NewMsg(t.subject("echo"))
	question.Header.Set("Id", "7")
	_, err := sender.RequestMsg(question, patience)
	t.ok(err, "request with headers")
}

func autoUnsubscribe(t *T) {
	receiver, sender := t.connect(plain), t.connect(plain)
	subject := t.subject("few")

	subscriptions := func() int {
		var page struct {
			Connections []struct {
				Name          string
				Subscriptions int
			}
		}
		t.monitoring(plain, "/connz?limit=1024", &page)
		n := 0
		for _, c := range page.Connections {
			if c.Name == "go-"+t.name {
				n += c.Subscriptions
			}
		}
		return n
	}

	before := t.subscribe(receiver, subject)
	t.ok(before.AutoUnsubscribe(10), "auto-unsubscribe")
	after := t.subscribe(receiver, subject)
	t.flush(receiver)
	for i := 0; i < 3; i++ {
		t.publish(sender, subject, strconv.Itoa(i))
		t.next(after)
	}
	t.ok(after.AutoUnsubscribe(5), "auto-unsubscribe") // the three delivered ones count
	t.flush(receiver)
	t.check(subscriptions() == 2, "the server counts %d subscriptions instead of 2", subscriptions())
	for i := 3; i < 5; i++ {
		t.publish(sender, subject, strconv.Itoa(i))
	}
	// The client stops at max by itself, so the server is asked as well.
	t.eventually("the server dropped the one that has had its five", func() bool { return subscriptions() == 1 })
	for i := 5; i < 20; i++ {
		t.publish(sender, subject, strconv.Itoa(i))
	}
	t.flush(sender)
	t.flush(receiver)
	for i := 0; i < 10; i++ {
		m := t.next(before)
		t.check(string(m.Data) == strconv.Itoa(i), "message %q instead of %d", m.Data, i)
	}
	for i := 3; i < 5; i++ {
		m := t.next(after)
		t.check(string(m.Data) == strconv.Itoa(i), "message %q instead of %d", m.Data, i)
	}
	for name, sub := range map[string]*nats.Subscription{"max given at once": before, "max given later": after} {
		_, err := sub.NextMsg(50 * time.Millisecond)
		t.check(err != nil, "%s: a message beyond the maximum", name)
		t.check(!sub.IsValid(), "%s: the subscription is still valid", name)
	}

	// The server itself forgets the subscription.
	t.eventually("the server dropped both subscriptions", func() bool { return subscriptions() == 0 })

	// A member that has had its share leaves the group to the others.
	limited, err := receiver.QueueSubscribeSync(t.subject("queue"), "q")
	t.ok(err, "queue subscribe")
	t.ok(limited.AutoUnsubscribe(2), "auto-unsubscribe")
	rest, err := sender.QueueSubscribeSync(t.subject("queue"), "q")
	t.ok(err, "queue subscribe")
	t.flush(receiver)
	t.flush(sender)
	for i := 0; i < 200; i++ {
		t.publish(sender, t.subject("queue"), strconv.Itoa(i))
	}
	for i := 0; i < 198; i++ {
		t.next(rest)
	}
	t.next(limited)
	t.next(limited)
	t.expectNothing(sender, rest)
}

func maxPayloadExact(t *T) {
	receiver, sender := t.connect(plain), t.connect(plain)
	sub := t.subscribe(receiver, t.subject("full"))
	t.flush(receiver)
	max := int(sender.MaxPayload())
	t.check(max == 1<<20, "max_payload is %d instead of the default 1 MiB", max)
	payload := random(max)
	t.ok(sender.Publish(t.subject("full"), payload), "publish max_payload bytes")
	t.check(bytes.Equal(t.next(sub).Data, payload), "the payload changed on its way")

	// Headers count: the block and the payload together may be exactly max_payload.
	m := nats.NewMsg(t.subject("full"))
	m.Header.Set("A", "b")
	m.Data = payload[:max-len("NATS/1.0\r\nA: b\r\n\r\n")]
	t.ok(sender.PublishMsg(m), "publish headers and payload of max_payload bytes")
	got := t.next(sub)
	t.check(bytes.Equal(got.Data, m.Data) && got.Header.Get("A") == "b", "the message with headers changed on its way")

	small := t.start("max_payload: 1000")
	nc := t.connect(small)
	t.check(nc.MaxPayload() == 1000, "max_payload is %d instead of 1000", nc.MaxPayload())
	echoed := t.subscribe(nc, "echoed")
	t.ok(nc.Publish("echoed", payload[:1000]), "publish 1000 bytes")
	t.check(bytes.Equal(t.next(echoed).Data, payload[:1000]), "the payload changed on its way")
}

func maxPayloadExceeded(t *T) {
	nc := t.connect(plain)
	err := nc.Publish(t.subject("over"), make([]byte, nc.MaxPayload()+1))
	t.isError(err, nats.ErrMaxPayload, "publish max_payload + 1 bytes")
	t.flush(nc) // the client refused it, so the connection is untouched

	// The client checks for itself; what the server says to one that does not, a raw connection sees.
	raw := t.dialRaw(plain, 0)
	raw.send("CONNECT {\"verbose\":false}\r\nPUB over 1048577\r\n")
	raw.expect("-ERR 'Maximum Payload Violation'")
	raw.expectClosed()
}

func random(size int) []byte {
	data := make([]byte, size)
	source := rand.New(rand.NewSource(int64(size)))
	source.Read(data)
	return data
}

func largePayload(t *T) {
	subject := t.subject("echo")
	echo(t, subject)
	nc := t.connect(plain)
	for _, size := range []int{1 << 20, 1<<20 - 1, 65536, 65535, 4096, 511, 1, 0} {
		payload := random(size)
		answer, err := nc.Request(subject, payload, patience)
		t.ok(err, fmt.Sprintf("request of %d bytes", size))
		t.check(bytes.Equal(answer.Data, payload), "%d bytes came back changed", size)
	}
	for i := 0; i < 20; i++ {
		answer, err := nc.Request(subject, random(1<<20), patience)
		t.ok(err, "request of 1 MiB")
		t.check(len(answer.Data) == 1<<20, "%d bytes came back", len(answer.Data))
	}
}

func ordering100k(t *T) {
	const messages = 100_000
	receiver, sender := t.connect(plain), t.connect(plain)
	subject := t.subject("count")
	subjects := []string{subject + ".a", subject + ".b"}
	sub := t.subscribe(receiver, subject+".*")
	t.flush(receiver)
	published := make(chan error, 1)
	go func() {
		for i := 0; i < messages; i++ {
			if err := sender.Publish(subjects[i%2], []byte(strconv.Itoa(i))); err != nil {
				published <- err
				return
			}
		}
		published <- sender.FlushTimeout(2 * patience)
	}()
	for i := 0; i < messages; i++ {
		m := t.next(sub)
		t.check(string(m.Data) == strconv.Itoa(i) && m.Subject == subjects[i%2], "message %q on %s instead of %d", m.Data, m.Subject, i)
	}
	t.ok(receive(t, published, "all is published"), "publish")
	t.expectNothing(receiver, sub)
}

func flushRtt(t *T) {
	a, b := t.connect(plain), t.connect(plain)
	own, foreign := t.subscribe(a, t.subject("x")), t.subscribe(b, t.subject("x"))
	t.flush(a)
	t.flush(b)
	// After A's flush the server has routed its messages; B's PONG comes behind them. No wait is needed on either side.
	for round := 1; round <= 100; round++ {
		for i := 0; i < 10; i++ {
			t.publish(a, t.subject("x"), "flush")
		}
		t.flush(a)
		pending, _, err := own.Pending()
		t.ok(err, "pending")
		t.check(pending == 10*round, "own flush returned with %d of %d messages", pending, 10*round)
		t.flush(b)
		pending, _, err = foreign.Pending()
		t.ok(err, "pending")
		t.check(pending == 10*round, "flushes on both sides returned with %d of %d messages", pending, 10*round)
	}
	for i := 0; i < 10; i++ {
		rtt, err := a.RTT()
		t.ok(err, "rtt")
		t.check(rtt > 0 && rtt < 5*time.Second, "rtt of %v", rtt)
	}
}

func noEcho(t *T) {
	quiet, other := t.connect(plain, nats.NoEcho()), t.connect(plain)
	own, foreign := t.subscribe(quiet, t.subject("x")), t.subscribe(other, t.subject("x"))
	t.flush(quiet)
	t.flush(other)
	t.publish(quiet, t.subject("x"), "from quiet")
	t.check(string(t.next(foreign).Data) == "from quiet", "the other connection missed it")
	t.expectNothing(quiet, own)
	t.publish(other, t.subject("x"), "from other")
	t.check(string(t.next(own).Data) == "from other", "the quiet connection missed another's message")
}

func verbosePedantic(t *T) {
	options := nats.GetDefaultOptions()
	options.Url, options.Verbose, options.Pedantic, options.Timeout = plain.Url, true, true, patience
	nc, err := options.Connect()
	t.ok(err, "connect verbose and pedantic")
	t.cleanup(nc.Close)
	sub := t.subscribe(nc, t.subject("x"))
	for i := 0; i < 100; i++ {
		t.publish(nc, t.subject("x"), strconv.Itoa(i))
	}
	for i := 0; i < 100; i++ {
		t.check(string(t.next(sub).Data) == strconv.Itoa(i), "message %d is missing", i)
	}
	t.ok(nc.LastError(), "connection")
}
