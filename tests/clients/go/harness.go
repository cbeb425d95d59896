// The part of the suite that is not a test: reports in the form run.py reads, and the control port through which it starts servers.
// Everything a test opens is closed when it ends, so that tests share nothing but the plain server.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// How long a condition may take on a busy machine before the test says that it will not come true.
const patience = 10 * time.Second

// A test that hangs ends here, so that the others still get their turn.
const testLimit = 40 * time.Second

type failure struct{ reason string }

// T is one running test. Its fail and check methods may be called only from the test's own goroutine.
type T struct {
	name     string
	mu       sync.Mutex
	cleanups []func()
}

func (t *T) fail(format string, args ...any) {
	panic(failure{fmt.Sprintf(format, args...)})
}

func (t *T) check(condition bool, format string, args ...any) {
	if !condition {
		t.fail(format, args...)
	}
}

func (t *T) ok(err error, what string) {
	if err != nil {
		t.fail("%s: %v", what, err)
	}
}

func (t *T) isError(err, want error, what string) {
	if !errors.Is(err, want) {
		t.fail("%s: want error %q, got %v", what, want, err)
	}
}

func (t *T) cleanup(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cleanups = append(t.cleanups, f)
}

func (t *T) runCleanups() {
	t.mu.Lock()
	cleanups := t.cleanups
	t.cleanups = nil
	t.mu.Unlock()
	for i := len(cleanups) - 1; i >= 0; i-- {
		cleanups[i]()
	}
}

// eventually waits for a condition instead of a time.
func (t *T) eventually(what string, condition func() bool) {
	deadline := time.Now().Add(patience)
	for !condition() {
		if time.Now().After(deadline) {
			t.fail("not within %v: %s", patience, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// receive takes the next value of a channel a callback feeds.
func receive[V any](t *T, ch <-chan V, what string) V {
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.fail("not within %v: %s", patience, what)
		panic("unreachable")
	}
}

func runTest(name string, body func(*T)) (reason string) {
	t := &T{name: name}
	done := make(chan string, 1)
	go func() {
		defer func() {
			switch r := recover().(type) {
			case nil:
				done <- ""
			case failure:
				done <- r.reason
			default:
				stack := make([]byte, 4096)
				stack = stack[:runtime.Stack(stack, false)]
				fmt.Fprintf(os.Stderr, "%s: panic: %v\n%s\n", name, r, stack)
				done <- fmt.Sprintf("panic: %v", r)
			}
		}()
		body(t)
	}()
	select {
	case reason = <-done:
	case <-time.After(testLimit):
		stacks := make([]byte, 1<<20)
		fmt.Fprintf(os.Stderr, "%s: still running\n%s\n", name, stacks[:runtime.Stack(stacks, true)])
		reason = fmt.Sprintf("still running after %v", testLimit)
	}
	t.runCleanups()
	return reason
}

type server struct {
	Id   string `json:"id"`
	Pid  int    `json:"pid"`
	Host string `json:"host"`
	Port int    `json:"port"`
	Url  string `json:"url"`
	Http string `json:"http"`

	ClientIp string `json:"client_ip"`
}

func control(call string, request, answer any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	response, err := http.Post(os.Getenv("CLIENTS_CONTROL")+call, "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		var refusal struct{ Error string }
		_ = json.Unmarshal(text, &refusal)
		return fmt.Errorf("control %s: %s", call, strings.ReplaceAll(refusal.Error, "\n", " | "))
	}
	return json.Unmarshal(text, answer)
}

// start runs a server of the test's own; config is text in nats-server's grammar.
func (t *T) start(config string, args ...string) *server {
	request := map[string]any{}
	if config != "" {
		request["config"] = config
	}
	if len(args) > 0 {
		request["args"] = args
	}
	s := &server{}
	t.ok(control("/start", request, s), "start a server")
	t.cleanup(func() { _ = control("/stop", map[string]any{"id": s.Id, "signal": "KILL"}, &struct{}{}) })
	return s
}

func (t *T) restart(s *server) {
	port := s.Port
	t.ok(control("/restart", map[string]any{"id": s.Id}, s), "restart the server")
	t.check(s.Port == port, "the server came back on port %d instead of %d", s.Port, port)
}

func (t *T) signal(s *server, name string) {
	t.ok(control("/signal", map[string]any{"id": s.Id, "signal": name}, &struct{}{}), "signal the server")
}

// monitoring reads one page of the server's monitoring port.
func (t *T) monitoring(s *server, page string, into any) {
	response, err := http.Get(s.Http + page)
	t.ok(err, page)
	defer response.Body.Close()
	t.check(response.StatusCode == http.StatusOK, "%s: status %d", page, response.StatusCode)
	t.ok(json.NewDecoder(response.Body).Decode(into), page)
}

var plain *server // shared by all tests that need nothing special

func (t *T) connect(s *server, options ...nats.Option) *nats.Conn {
	options = append([]nats.Option{nats.Name("go-" + t.name), nats.Timeout(patience)}, options...)
	nc, err := nats.Connect(s.Url, options...)
	t.ok(err, "connect")
	t.cleanup(nc.Close)
	return nc
}

func (t *T) subscribe(nc *nats.Conn, subject string) *nats.Subscription {
	sub, err := nc.SubscribeSync(subject)
	t.ok(err, "subscribe "+subject)
	return sub
}

func (t *T) next(sub *nats.Subscription) *nats.Msg {
	m, err := sub.NextMsg(patience)
	t.ok(err, "next message on "+sub.Subject)
	return m
}

func (t *T) publish(nc *nats.Conn, subject, payload string) {
	t.ok(nc.Publish(subject, []byte(payload)), "publish "+subject)
}

func (t *T) flush(nc *nats.Conn) {
	t.ok(nc.FlushTimeout(patience), "flush")
}

// expectNothing relies on order: whatever the server had for this connection arrives before its PONG.
func (t *T) expectNothing(nc *nats.Conn, sub *nats.Subscription) {
	t.flush(nc)
	if m, err := sub.NextMsg(time.Millisecond); err == nil {
		t.fail("unexpected message on %s: %q", m.Subject, m.Data)
	}
}

// subject is unique to the test: the server is shared.
func (t *T) subject(rest string) string { return "go." + t.name + "." + rest }

type test struct {
	name string
	body func(*T)
}

func main() {
	fmt.Printf("plan %d\n", len(tests))
	setup := &T{name: "setup"}
	plain = &server{}
	if err := control("/start", map[string]any{}, plain); err != nil {
		fmt.Fprintln(os.Stderr, "start the plain server:", err)
		os.Exit(2)
	}
	setup.cleanup(func() { _ = control("/stop", map[string]any{"id": plain.Id}, &struct{}{}) })

	only := map[string]bool{}
	for _, name := range strings.FieldsFunc(os.Getenv("CLIENTS_ONLY"), func(r rune) bool { return r == ',' }) {
		only[name] = true
	}
	failed := 0
	for _, one := range tests {
		if len(only) > 0 && !only[one.name] {
			continue
		}
		began := time.Now()
		reason := runTest(one.name, one.body)
		fmt.Printf("# %s took %d ms\n", one.name, time.Since(began).Milliseconds())
		if reason == "" {
			fmt.Printf("ok %s\n", one.name)
		} else {
			failed++
			fmt.Printf("FAIL %s: %s\n", one.name, strings.ReplaceAll(reason, "\n", " | "))
		}
	}
	setup.runCleanups()
	if failed > 0 {
		os.Exit(1)
	}
}
