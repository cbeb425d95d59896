import io.nats.client.AuthenticationException;
import io.nats.client.Connection;
import io.nats.client.ConnectionListener.Events;
import io.nats.client.Dispatcher;
import io.nats.client.Message;
import io.nats.client.Nats;
import io.nats.client.Options;
import io.nats.client.Subscription;
import io.nats.client.api.ServerInfo;
import io.nats.client.support.JsonValue;
import java.io.BufferedInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.net.SocketTimeoutException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

/** The life of a connection: who may connect, what it learns of the server, and what it sees when either side goes. */
final class Connections {
  static void register(Map<String, Suite.Body> tests) {
    tests.put("drain", Connections::drain);
    tests.put("reconnect", Connections::reconnect);
    tests.put("slow_consumer", Connections::slowConsumer);
    tests.put("auth_user_pass", Connections::authUserPass);
    tests.put("auth_token", Connections::authToken);
    tests.put("auth_failure", Connections::authFailure);
    tests.put("permissions_violation", Connections::permissionsViolation);
    tests.put("server_info", Connections::serverInfo);
    tests.put("lame_duck", Connections::lameDuck);
    // The suite's own.
    tests.put("reconnect_buffered", Connections::reconnectBuffered);
    tests.put("monitored", Connections::monitored);
    tests.put("callbacks", Connections::callbacks);
    tests.put("keep_alive", Connections::keepAlive);
  }

  private static void drain(Suite.Test t) throws Exception {
    Connection sender = t.connect();

    // A dispatcher: what was sent is handled, however slowly, and nothing after it.
    Connection receiver = t.connect();
    AtomicInteger handled = new AtomicInteger();
    Dispatcher dispatcher = receiver.createDispatcher(message -> {
      Thread.sleep(1);
      handled.incrementAndGet();
    });
    dispatcher.subscribe(t.subject("sub"));
    Suite.flush(receiver);
    for (int i = 0; i < 100; i++) {
      sender.publish(t.subject("sub"), null);
    }
    Suite.flush(sender);
    Suite.check(dispatcher.drain(Suite.PATIENCE).get(Suite.PATIENCE.toSeconds(), TimeUnit.SECONDS), "the dispatcher did not drain");
    Suite.same(handled.get(), 100, "messages handled");
    sender.publish(t.subject("sub"), null);
    Suite.flush(sender);
    Suite.flush(receiver);
    Suite.same(handled.get(), 100, "messages handled after the drain");

    // A connection: its subscriptions first, then what it has still to publish, then it closes.
    Suite.Watch watch = new Suite.Watch();
    Connection worker = t.connect(t.options(t.plain).connectionListener(watch).errorListener(watch));
    Subscription results = sender.subscribe(t.subject("results"));
    worker.createDispatcher(message -> {
      Thread.sleep(1);
      worker.publish(t.subject("results"), message.getData());
    }).subscribe(t.subject("jobs"));
    Suite.flush(worker);
    for (int i = 0; i < 100; i++) {
      sender.publish(t.subject("jobs"), Suite.bytes("" + i));
    }
    Suite.flush(sender);
    CompletableFuture<Boolean> drained = worker.drain(Suite.PATIENCE);
    for (int i = 0; i < 100; i++) {
      Suite.same(Suite.nextText(results), "" + i, "result");
    }
    Suite.check(drained.get(Suite.PATIENCE.toSeconds(), TimeUnit.SECONDS), "the connection did not drain");
    watch.waitFor(Events.CLOSED);
    Suite.check(watch.errors.isEmpty(), "the drain reported %s", watch.errors);
    Suite.fails(IllegalStateException.class, "publish after the drain", () -> {
      worker.publish(t.subject("jobs"), null);
      return "success";
    });
    Suite.fails(CancellationException.class, "request to the drained worker",
        () -> sender.request(t.subject("jobs"), null).get(Suite.PATIENCE.toSeconds(), TimeUnit.SECONDS));
  }

  private static void reconnect(Suite.Test t) throws Exception {
    Suite.Server server = t.start("");
    Suite.Watch watch = new Suite.Watch();
    Connection connection = t.connect(t.options(server).connectionListener(watch).errorListener(watch));
    Subscription literal = connection.subscribe("news.today");
    Subscription pattern = connection.subscribe("news.>");
    Subscription member = connection.subscribe("jobs.*", "workers");
    Subscription limited = connection.subscribe("limited");
    limited.unsubscribe(5);
    connection.createDispatcher(message -> connection.publish(message.getReplyTo(), message.getData())).subscribe("echo");
    for (int i = 0; i < 2; i++) {
      connection.publish("limited", null);
      Suite.next(limited);
    }
    String id = connection.getServerInfo().getServerId();
    for (int round = 0; round < 2; round++) {
      server.restart();
      watch.waitFor(Events.DISCONNECTED);
      watch.waitFor(Events.RESUBSCRIBED);
      Suite.flush(connection);
      Suite.check(!connection.getServerInfo().getServerId().equals(id), "the restarted server has the old server id");
      id = connection.getServerInfo().getServerId();

      Connection sender = t.connect(t.options(server));
      sender.publish("news.today", Suite.bytes("again"));
      sender.publish("jobs.one", Suite.bytes("again"));
      Suite.same(Suite.nextText(literal), "again", "the literal subscription");
      Suite.same(Suite.nextText(pattern), "again", "the wildcard subscription");
      Suite.same(Suite.nextText(member), "again", "the queue subscription");
      for (Connection asker : List.of(sender, connection)) {
        Message answer = asker.request("echo", Suite.bytes("there?"), Suite.PATIENCE);
        Suite.check(answer != null, "no answer after the reconnect");
        Suite.same(Suite.text(answer), "there?", "answer");
      }
      Suite.expectNothing(connection, literal);
    }
    Suite.same(connection.getStatistics().getReconnects(), 2L, "reconnects");

    // The client asks for what is left of the five.
    Connection sender = t.connect(t.options(server));
    for (int i = 0; i < 10; i++) {
      sender.publish("limited", null);
    }
    for (int i = 0; i < 3; i++) {
      Suite.next(limited);
    }
    Suite.fails(IllegalStateException.class, "beyond the maximum after the reconnect", () -> limited.nextMessage(10));
  }

  /** What was published while the server was away is kept by the client and arrives once it is back. */
  private static void reconnectBuffered(Suite.Test t) throws Exception {
    Suite.Server server = t.start("");
    Suite.Watch watch = new Suite.Watch();
    Connection connection = t.connect(t.options(server).connectionListener(watch).errorListener(watch));
    Subscription sub = connection.subscribe("kept");
    Suite.flush(connection);
    server.stop("TERM");
    watch.waitFor(Events.DISCONNECTED);
    // Only in this state, reached a little after the event, does jnats keep what is published: the server stays away until then.
    Suite.eventually("the client is reconnecting", () -> connection.getStatus() == Connection.Status.RECONNECTING);
    for (int i = 0; i < 100; i++) {
      connection.publish("kept", Suite.bytes("" + i));
    }
    server.restart();
    for (int i = 0; i < 100; i++) {
      Suite.same(Suite.nextText(sub), "" + i, "message");
    }
  }

  /** A connection that speaks the protocol by hand, as no client library would. */
  private static final class Raw implements AutoCloseable {
    private final Socket socket = new Socket();
    private final InputStream in;

    Raw(Suite.Server server, int receiveBufferBytes, String greeting) throws IOException {
      socket.setReceiveBufferSize(receiveBufferBytes);
      socket.setSoTimeout((int) Suite.PATIENCE.toMillis());
      socket.connect(new InetSocketAddress(server.host, server.port));
      in = new BufferedInputStream(socket.getInputStream());
      expect("INFO ");
      socket.getOutputStream().write(Suite.bytes(greeting));
      expect("PONG");
    }

    private void expect(String prefix) throws IOException {
      StringBuilder line = new StringBuilder();
      for (int c = in.read(); c != '\n'; c = in.read()) {
        Suite.check(c >= 0, "the end instead of %s", prefix);
        line.append((char) c);
      }
      Suite.check(line.toString().startsWith(prefix), "%s instead of %s", line, prefix);
    }

    /** Reads what is left and then the end; a reset is an end as well. */
    void expectClosed() throws IOException {
      try {
        in.transferTo(java.io.OutputStream.nullOutputStream());
      } catch (SocketTimeoutException timeout) {
        throw new Suite.Failure("the server keeps the connection open");
      } catch (IOException reset) {
        // An end as well.
      }
    }

    @Override
    public void close() throws IOException {
      socket.close();
    }
  }

  private static int slowConsumers(Suite.Server server) throws IOException {
    JsonValue count = server.monitoring("/varz").map.get("slow_consumers");
    Suite.check(count != null, "no slow_consumers in /varz");
    return count.i;
  }

  private static void slowConsumer(Suite.Test t) throws Exception {
    // Limits far below the defaults, so that little traffic fills them, whatever the system's socket buffers take.
    Suite.Server server = t.start("max_pending: 1MB\nmax_payload: 64KB\nwrite_deadline: \"5s\"\n");
    Raw stuck = t.close(new Raw(server, 4096, "CONNECT {\"verbose\":false}\r\nSUB flood 1\r\nPING\r\n"));
    Connection healthy = t.connect(t.options(server));
    Connection sender = t.connect(t.options(server));
    Subscription sub = healthy.subscribe("flood");
    Suite.flush(healthy);
    Suite.same(slowConsumers(server), 0, "slow consumers before anything was sent");

    // The healthy one is never more than 512 KiB behind, so whatever it would miss is the server's fault.
    long deadline = System.nanoTime() + 2 * Suite.PATIENCE.toNanos();
    int sent = 0;
    while (slowConsumers(server) == 0) {
      Suite.check(System.nanoTime() < deadline, "no slow consumer after %d messages of 32 KiB", sent);
      for (int i = 0; i < 16; i++) {
        byte[] payload = new byte[32 * 1024];
        Arrays.fill(payload, (byte) (sent + i));
        sender.publish("flood", payload);
      }
      for (int i = 0; i < 16; i++) {
        byte[] payload = Suite.next(sub).getData();
        Suite.check(payload.length == 32 * 1024 && payload[0] == (byte) (sent + i) && payload[32 * 1024 - 1] == payload[0],
            "the healthy subscriber got another message than %d", sent + i);
      }
      sent += 16;
    }
    Suite.same(slowConsumers(server), 1, "slow consumers");
    stuck.expectClosed();
    sender.publish("flood", Suite.bytes("after"));
    Suite.same(Suite.nextText(sub), "after", "the healthy subscriber");
    Suite.expectNothing(healthy, sub);
  }

  private static void works(Connection connection) throws Exception {
    Subscription sub = connection.subscribe("works");
    connection.publish("works", Suite.bytes("yes"));
    Suite.same(Suite.nextText(sub), "yes", "message");
  }

  /** All at once: jnats learns of the refusal at once, but always waits out its connection timeout. */
  private static void refused(Map<String, Options.Builder> attempts) throws Exception {
    List<CompletableFuture<String>> reports = new ArrayList<>();
    attempts.forEach((what, options) -> reports.add(CompletableFuture.supplyAsync(() -> {
      options.connectionTimeout(Duration.ofSeconds(4));
      try {
        AuthenticationException error = Suite.fails(AuthenticationException.class, what, () -> Nats.connect(options.build()));
        boolean names = error.getMessage().toLowerCase(Locale.ROOT).contains("authorization violation");
        return names ? "" : what + ": " + error.getMessage();
      } catch (Suite.Failure failure) {
        return failure.getMessage();
      }
    }, command -> new Thread(command).start())));
    for (CompletableFuture<String> report : reports) {
      Suite.same(report.get(2 * Suite.PATIENCE.toSeconds(), TimeUnit.SECONDS), "", "refused attempt");
    }
  }

  /** bcrypt of "s3cret", at the lowest cost. */
  private static final String BCRYPT_SECRET = "$2b$04$abcdefghijklmnopqrstuuLZYjhNQAOdpbzt4WxWlUHjv1wsyH5DG";

  private static void authUserPass(Suite.Test t) throws Exception {
    Suite.Server server = t.start("", "--user", "bob", "--pass", "s3cret");
    Connection connection = t.connect(t.options(server).userInfo("bob", "s3cret"));
    Suite.check(connection.getServerInfo().isAuthRequired(), "INFO does not say that authorization is required");
    works(connection);
    works(t.close(Nats.connect("nats://bob:s3cret@" + server.host + ":" + server.port)));

    Suite.Server several =
        t.start("authorization { users: [ { user: alice, password: \"wonder land\" }, { user: bob, password: s3cret } ] }");
    works(t.connect(t.options(several).userInfo("alice", "wonder land")));
    works(t.connect(t.options(several).userInfo("bob", "s3cret")));

    Suite.Server hashed = t.start("authorization { user: bob, password: \"" + BCRYPT_SECRET + "\" }");
    works(t.connect(t.options(hashed).userInfo("bob", "s3cret")));
  }

  private static void authToken(Suite.Test t) throws Exception {
    Suite.Server server = t.start("", "--auth", "s3cret");
    works(t.connect(t.options(server).token("s3cret".toCharArray())));
    works(t.close(Nats.connect("nats://s3cret@" + server.host + ":" + server.port)));
    Suite.Server quoted = t.start("authorization { token: \"t0k en\" }");
    works(t.connect(t.options(quoted).token("t0k en".toCharArray())));
  }

  private static void authFailure(Suite.Test t) throws Exception {
    Suite.Server user = t.start("", "--user", "bob", "--pass", "s3cret");
    Suite.Server token = t.start("", "--auth", "s3cret");
    Suite.Server hashed = t.start("authorization { user: bob, password: \"" + BCRYPT_SECRET + "\" }");
    refused(Map.of(
        "a wrong password", t.options(user).userInfo("bob", "secret"),
        "an empty password", t.options(user).userInfo("bob", ""),
        "a wrong user", t.options(user).userInfo("Bob", "s3cret"),
        "a token instead of a user", t.options(user).token("s3cret".toCharArray()),
        "no user", t.options(user),
        "a wrong token", t.options(token).token("s3cre".toCharArray()),
        "a user instead of a token", t.options(token).userInfo("bob", "s3cret"),
        "no token", t.options(token),
        "a wrong password against a hash", t.options(hashed).userInfo("bob", "secret"),
        "the hash itself", t.options(hashed).userInfo("bob", BCRYPT_SECRET)));
    works(t.connect(t.options(user).userInfo("bob", "s3cret")));
    works(t.connect(t.options(token).token("s3cret".toCharArray())));
    works(t.connect(t.options(hashed).userInfo("bob", "s3cret")));
  }

  private static void permissionsViolation(Suite.Test t) throws Exception {
    Suite.Server server = t.start("""
        authorization {
          users: [
            { user: bob, password: pw, permissions: {
                publish: { allow: ["open.>", "_INBOX.>"], deny: "open.secret" }
                subscribe: { allow: ["open.>", "_INBOX.>"], deny: ["open.hidden.*"] } } }
            { user: boss, password: pw }
          ]
        }
        """);
    Suite.Watch watch = new Suite.Watch();
    Connection bob = t.connect(t.options(server).userInfo("bob", "pw").errorListener(watch).connectionListener(watch));
    watch.waitFor(Events.CONNECTED);
    Connection boss = t.connect(t.options(server).userInfo("boss", "pw"));
    Subscription everything = boss.subscribe(">");
    Suite.flush(boss);
    for (String subject : List.of("closed", "open", "open.secret", "closed.x")) {
      bob.publish(subject, Suite.bytes("x"));
      Suite.same(Suite.receive(watch.errors, "the error for " + subject),
          "Permissions Violation for Publish to \"" + subject + "\"", "error");
    }
    for (String subject : List.of("closed", "open", ">", "*.>", "open.hidden.x", "open.hidden.*")) {
      Subscription refused = bob.subscribe(subject);
      Suite.same(Suite.receive(watch.errors, "the error for " + subject),
          "Permissions Violation for Subscription to \"" + subject + "\"", "error");
      refused.unsubscribe();
    }
    Subscription member = bob.subscribe("closed", "workers");
    Suite.same(Suite.receive(watch.errors, "the error for the member"),
        "Permissions Violation for Subscription to \"closed\" using queue \"workers\"", "error");

    // Overlap with a denied pattern is no violation: the subscription holds, denied subjects are kept from it.
    Subscription wide = bob.subscribe("open.>");
    Suite.flush(bob);
    Suite.expectNothing(boss, everything);
    for (String subject : List.of("open.hidden.x", "closed", "open.x")) {
      boss.publish(subject, null);
      Suite.same(Suite.next(everything).getSubject(), subject, "what the boss sees");
    }
    Suite.same(Suite.next(wide).getSubject(), "open.x", "what the wider subscription sees");
    Suite.expectNothing(bob, member);
    bob.publish("open.y", Suite.bytes("still there"));
    Suite.same(Suite.nextText(everything), "still there", "the connection after it all");
    Suite.check(watch.errors.isEmpty(), "too many errors: %s", watch.errors);
    Suite.check(watch.events.isEmpty(), "the connection did not survive: %s", watch.events);
  }

  private static void serverInfo(Suite.Test t) throws Exception {
    Connection connection = t.connect();
    ServerInfo info = connection.getServerInfo();
    Suite.check(info.getVersion().matches("\\d+\\.\\d+\\.\\d+(-[0-9A-Za-z.-]+)?"), "version %s", info.getVersion());
    Suite.check(info.isSameOrNewerThanVersion("2.10.0"), "version %s is no level of today", info.getVersion());
    Suite.check(info.getServerId().matches("N[A-Z2-7]{55}"), "server id %s", info.getServerId());
    Suite.same(info.getServerName(), info.getServerId(), "server name");
    Suite.same(info.getHost(), t.plain.host, "host");
    Suite.same(info.getPort(), t.plain.port, "port");
    Suite.same(info.getProtocolVersion(), 1, "proto");
    Suite.same(info.getMaxPayload(), 1L << 20, "max_payload");
    Suite.check(info.isHeadersSupported() && !info.isAuthRequired() && !info.isTLSRequired(), "flags of %s", info);
    Suite.check(!info.isTLSAvailable() && !info.isLameDuckMode(), "flags of %s", info);
    Suite.check(info.getClientId() > 0, "client id %d", info.getClientId());
    Suite.check(info.getClientId() != t.connect().getServerInfo().getClientId(), "two connections with one client id");
    Suite.same(info.getClientIp(), t.plain.clientIp, "client ip");
    Suite.same(connection.getClientInetAddress().getHostAddress(), t.plain.clientIp, "client address");
    Suite.check(info.getConnectURLs().isEmpty(), "a lone server advertises %s", info.getConnectURLs());

    Suite.Server advertised = t.start("server_name: blue\nclient_advertise: \"127.0.0.7:4333\"\nmax_payload: 4KB\n");
    info = t.connect(t.options(advertised)).getServerInfo();
    Suite.same(info.getServerName(), "blue", "server name");
    Suite.same(info.getHost() + ":" + info.getPort(), "127.0.0.7:4333", "advertised address");
    Suite.same(info.getMaxPayload(), 4096L, "max_payload");
  }

  private static void lameDuck(Suite.Test t) throws Exception {
    Suite.Server server = t.start("lame_duck_duration: \"30s\"\nlame_duck_grace_period: \"500ms\"\n");
    Suite.Watch watch = new Suite.Watch();
    Connection connection = t.connect(t.options(server).noReconnect().connectionListener(watch).errorListener(watch));
    // The server sends asynchronous INFO only to those that have had a PONG.
    Suite.flush(connection);
    Suite.same(Suite.receive(watch.events, "connected"), "CONNECTED", "event");
    server.signal("USR2");
    Suite.same(Suite.receive(watch.events, "lame duck"), "LAME_DUCK", "event");
    Suite.check(connection.getServerInfo().isLameDuckMode(), "the INFO does not say so");
    Suite.fails(IOException.class, "connect to the lame duck", () -> Nats.connect(t.options(server).noReconnect().build()));
    watch.waitFor(Events.CLOSED);
  }

  private static void callbacks(Suite.Test t) throws Exception {
    Suite.Watch watch = new Suite.Watch();
    Connection connection = t.connect(t.options(t.plain).connectionListener(watch));
    Suite.same(Suite.receive(watch.events, "connected"), "CONNECTED", "event");
    connection.close();
    watch.waitFor(Events.CLOSED);
    Suite.same(connection.getStatus(), Connection.Status.CLOSED, "status");
    Suite.fails(IllegalStateException.class, "publish on a closed connection", () -> {
      connection.publish("x", null);
      return "success";
    });

    // The server goes in an orderly way and does not come back.
    Suite.Server server = t.start("");
    Suite.Watch left = new Suite.Watch();
    Connection leftBehind = t.connect(t.options(server).noReconnect().connectionListener(left).errorListener(left));
    Suite.flush(leftBehind);
    Suite.same(Suite.receive(left.events, "connected"), "CONNECTED", "event");
    server.stop("INT");
    Suite.same(Suite.receive(left.events, "disconnected"), "DISCONNECTED", "event");
    left.waitFor(Events.CLOSED);
    Suite.check(left.errors.isEmpty(), "a shutdown sends no error, but: %s", left.errors);
    Suite.fails(IOException.class, "connect to the stopped server", () -> Nats.connect(t.options(server).noReconnect().build()));
  }

  /** What the client tells the server shows up in its monitoring. */
  private static void monitored(Suite.Test t) throws Exception {
    Connection connection = t.connect(t.options(t.plain).connectionName("watch me, three"));
    Subscription sub = connection.subscribe(t.subject("x"));
    for (int i = 0; i < 5; i++) {
      connection.publish(t.subject("x"), Suite.bytes("12345"));
      Suite.next(sub);
    }
    int id = connection.getServerInfo().getClientId();
    List<JsonValue> listed = t.plain.monitoring("/connz?cid=" + id + "&subs=1").map.get("connections").array;
    Suite.same(listed.size(), 1, "connections with this id");
    Map<String, JsonValue> fields = listed.get(0).map;
    Map<String, String> wanted = Map.of("cid", "" + id, "name", "watch me, three", "lang", "java", "version", Nats.CLIENT_VERSION,
        "in_msgs", "5", "out_msgs", "5", "in_bytes", "25", "out_bytes", "25", "subscriptions", "1");
    for (Map.Entry<String, String> one : wanted.entrySet()) {
      JsonValue field = fields.get(one.getKey());
      Suite.check(field != null, "no %s in /connz", one.getKey());
      Suite.same(field.string != null ? field.string : "" + field.i, one.getValue(), one.getKey());
    }
    Suite.same(fields.get("subscriptions_list").array.get(0).string, t.subject("x"), "subscriptions_list");
  }

  /** A server that pings: the client answers, and nobody is cut off. */
  private static void keepAlive(Suite.Test t) throws Exception {
    Suite.Server server = t.start("ping_interval: \"100ms\"\nping_max: 2\n");
    Suite.Watch watch = new Suite.Watch();
    Connection connection = t.connect(t.options(server).pingInterval(Duration.ofMillis(100)).maxPingsOut(5)
        .connectionListener(watch).errorListener(watch));
    watch.waitFor(Events.CONNECTED);
    // The one that never answers is the clock: it has gone through ping_max pings.
    t.close(new Raw(server, 65536, "CONNECT {\"verbose\":false}\r\nPING\r\n")).expectClosed();
    Suite.same(connection.getStatus(), Connection.Status.CONNECTED, "status");
    Suite.check(watch.events.isEmpty(), "a client that answers pings was cut off: %s", watch.events);
    works(connection);
  }

  private Connections() {}
}
