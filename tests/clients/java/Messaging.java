import io.nats.client.Connection;
import io.nats.client.JetStreamStatusException;
import io.nats.client.Message;
import io.nats.client.Options;
import io.nats.client.Subscription;
import io.nats.client.impl.Headers;
import io.nats.client.impl.NatsMessage;
import io.nats.client.support.JsonValue;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CancellationException;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** Messages between connected clients: what the subject matches, who of a group gets it, in which order, how large it may be. */
final class Messaging {
  static void register(Map<String, Suite.Body> tests) {
    tests.put("publish_subscribe", Messaging::publishSubscribe);
    tests.put("wildcard_star", Messaging::wildcardStar);
    tests.put("wildcard_full", Messaging::wildcardFull);
    tests.put("queue_group", Messaging::queueGroup);
    tests.put("request_inbox", t -> requests(t, t.connect(t.options(t.plain).oldRequestStyle()), 20, 10));
    tests.put("request_mux", t -> requests(t, t.connect(), 50, 40));
    tests.put("no_responders", Messaging::noResponders);
    tests.put("headers", Messaging::headers);
    tests.put("auto_unsubscribe", Messaging::autoUnsubscribe);
    tests.put("max_payload_exact", Messaging::maxPayloadExact);
    tests.put("max_payload_exceeded", Messaging::maxPayloadExceeded);
    tests.put("large_payload", Messaging::largePayload);
    tests.put("ordering_100k", Messaging::ordering100k);
    tests.put("flush_rtt", Messaging::flushRtt);
    // The suite's own.
    tests.put("request_many", Messaging::requestMany);
    tests.put("no_echo", Messaging::noEcho);
    tests.put("verbose_pedantic", Messaging::verbosePedantic);
    tests.put("without_headers", Messaging::withoutHeaders);
  }

  private static void publishSubscribe(Suite.Test t) throws Exception {
    Connection receiver = t.connect();
    Connection sender = t.connect();
    String subject = t.subject("greeting");
    Subscription sub = receiver.subscribe(subject);
    Suite.flush(receiver);
    for (String payload : List.of("Hello", "", "\0\r\nü", "PUB other 3\r\nabc\r\n")) {
      sender.publish(subject, Suite.bytes(payload));
      Message message = Suite.next(sub);
      Suite.same(message.getSubject(), subject, "subject");
      Suite.same(Suite.text(message), payload, "payload");
      Suite.check(message.getReplyTo() == null && !message.hasHeaders(), "reply or headers where none was given");
    }
    Suite.flush(sender);
    Suite.expectNothing(receiver, sub);

    // Two subscriptions of one connection to one subject are two receivers.
    Subscription twin = receiver.subscribe(subject);
    Suite.flush(receiver);
    sender.publish(subject, Suite.bytes("both"));
    Suite.same(Suite.nextText(sub), "both", "the first of two equal subscriptions");
    Suite.same(Suite.nextText(twin), "both", "the second of two equal subscriptions");
    sub.unsubscribe();
    Suite.flush(receiver);
    sender.publish(subject, Suite.bytes("one left"));
    Suite.same(Suite.nextText(twin), "one left", "the remaining subscription");
    Suite.flush(sender);
    Suite.expectNothing(receiver, twin);
  }

  /** Publishes on every subject and checks on which of them the pattern's subscription got it, in order. */
  private static void matches(Suite.Test t, String pattern, List<String> hits, List<String> misses) throws Exception {
    Connection receiver = t.connect();
    Connection sender = t.connect();
    Subscription sub = receiver.subscribe(t.subject(pattern));
    Suite.flush(receiver);
    for (List<String> some : List.of(misses, hits, misses)) {
      for (String rest : some) {
        sender.publish(t.subject(rest), Suite.bytes(rest));
      }
    }
    Suite.flush(sender);
    for (String rest : hits) {
      Message message = Suite.next(sub);
      Suite.same(message.getSubject(), t.subject(rest), pattern);
      Suite.same(Suite.text(message), rest, pattern);
    }
    Suite.expectNothing(receiver, sub);
  }

  private static void wildcardStar(Suite.Test t) throws Exception {
    matches(t, "a.*", List.of("a.x", "a.y", "a.$"), List.of("a", "a.x.y", "b.x", "ax.y"));
    matches(t, "a.*.end", List.of("a.x.end", "a.y.end"), List.of("a.end", "a.x.y.end", "a.x.ends"));
    matches(t, "*.*", List.of("a.x", "b.y"), List.of("a", "b.y.z"));
  }

  private static void wildcardFull(Suite.Test t) throws Exception {
    matches(t, "a.>", List.of("a.x", "a.x.y", "a.x.y.z.1.2.3"), List.of("a", "b.x"));
    matches(t, "*.>", List.of("a.x", "b.x.y"), List.of("a", "b"));
  }

  private static void queueGroup(Suite.Test t) throws Exception {
    final int members = 4;
    final int messages = 1000;
    String subject = t.subject("work");
    BlockingQueue<String> served = new LinkedBlockingQueue<>();
    for (int i = 0; i < members; i++) {
      String member = i + ":";
      Connection connection = t.connect();
      connection.createDispatcher(message -> served.add(member + Suite.text(message))).subscribe(subject, "workers");
      Suite.flush(connection);
    }
    Connection watcher = t.connect();
    Subscription all = watcher.subscribe(subject);
    Subscription other = watcher.subscribe(t.subject("*"), "auditors");
    Suite.flush(watcher);

    Connection sender = t.connect();
    for (int i = 0; i < messages; i++) {
      sender.publish(subject, Suite.bytes("" + i));
    }
    for (int i = 0; i < messages; i++) {
      Suite.same(Suite.nextText(all), "" + i, "the plain subscriber");
      Suite.same(Suite.nextText(other), "" + i, "the other group");
    }
    Set<String> who = new HashSet<>();
    Set<String> seen = new HashSet<>();
    for (int i = 0; i < messages; i++) {
      String[] one = Suite.receive(served, "message " + i + " of the group").split(":");
      Suite.check(seen.add(one[1]), "message %s went to two members", one[1]);
      who.add(one[0]);
    }
    Suite.same(who.size(), members, "members that got something");
    Suite.flush(sender);
    Suite.expectNothing(watcher, all);
    Suite.check(served.isEmpty(), "the group handled a message too many");
  }

  private static void echo(Suite.Test t, String subject) throws Exception {
    Connection connection = t.connect();
    connection.createDispatcher(message -> connection.publish(message.getReplyTo(), message.getHeaders(), message.getData()))
        .subscribe(subject, "echo");
    Suite.flush(connection);
  }

  private static void requests(Suite.Test t, Connection connection, int callers, int each) throws Exception {
    String subject = t.subject("echo");
    echo(t, subject);
    echo(t, subject);
    BlockingQueue<String> problems = new LinkedBlockingQueue<>();
    List<Thread> threads = new ArrayList<>();
    for (int c = 0; c < callers; c++) {
      int caller = c;
      Thread thread = new Thread(() -> {
        try {
          for (int i = 0; i < each; i++) {
            String question = caller + "/" + i;
            Message answer = connection.request(subject, Suite.bytes(question), Suite.PATIENCE);
            Suite.check(answer != null, "no answer to %s", question);
            Suite.same(Suite.text(answer), question, "answer");
          }
        } catch (Exception problem) {
          problems.add(problem.toString());
        }
      });
      thread.start();
      threads.add(thread);
    }
    for (Thread thread : threads) {
      thread.join();
    }
    Suite.check(problems.isEmpty(), "%d callers failed, the first with %s", problems.size(), problems.peek());
  }

  private static void requestMany(Suite.Test t) throws Exception {
    final int responders = 5;
    for (int i = 0; i < responders; i++) {
      byte[] answer = Suite.bytes("" + i);
      Connection connection = t.connect();
      connection.createDispatcher(message -> connection.publish(message.getReplyTo(), answer)).subscribe(t.subject("who"));
      Suite.flush(connection);
    }
    Connection connection = t.connect();
    String inbox = connection.createInbox();
    Subscription answers = connection.subscribe(inbox);
    connection.publish(t.subject("who"), inbox, new byte[0]);
    Set<String> seen = new HashSet<>();
    for (int i = 0; i < responders; i++) {
      seen.add(Suite.nextText(answers));
    }
    Suite.same(seen.size(), responders, "different answers");
    Suite.expectNothing(connection, answers);
  }

  /** Asks where nobody listens, in both ways the client can be told to report it. */
  private static void noResponders(Suite.Test t) throws Exception {
    for (boolean oldStyle : List.of(false, true)) {
      Options.Builder reporting = t.options(t.plain).reportNoResponders();
      Connection connection = t.connect(oldStyle ? reporting.oldRequestStyle() : reporting);
      long began = System.nanoTime();
      nobody(connection, t.subject("nobody"));
      Suite.check(System.nanoTime() - began < Suite.PATIENCE.toNanos(), "the answer took too long");

      // A responder that has left counts as none; one that stays silent is a timeout, not a 503.
      Subscription silent = connection.subscribe(t.subject("silent"));
      Message answer = connection.request(t.subject("silent"), null, Duration.ofMillis(100));
      Suite.check(answer == null, "the silent one answered %s", answer);
      silent.unsubscribe();
      Suite.flush(connection);
      nobody(connection, t.subject("silent"));
    }
    Connection connection = t.connect();
    Suite.fails(CancellationException.class, "request without a responder",
        () -> connection.request(t.subject("nobody"), null).get(Suite.PATIENCE.toSeconds(), TimeUnit.SECONDS));
  }

  private static void nobody(Connection connection, String subject) {
    ExecutionException error = Suite.fails(ExecutionException.class, "request without a responder",
        () -> connection.request(subject, null).get(Suite.PATIENCE.toSeconds(), TimeUnit.SECONDS));
    Suite.check(error.getCause() instanceof JetStreamStatusException, "request without a responder: %s", error.getCause());
    JetStreamStatusException status = (JetStreamStatusException) error.getCause();
    Suite.same(status.getStatus().getCode(), 503, "status");
  }

  private static void headers(Suite.Test t) throws Exception {
    Connection receiver = t.connect();
    Connection sender = t.connect();
    Suite.check(sender.getServerInfo().isHeadersSupported(), "the server does not offer headers");
    String subject = t.subject("note");
    Subscription sub = receiver.subscribe(subject);
    Suite.flush(receiver);
    // jnats allows ASCII only in header values.
    Headers sent = new Headers().put("Color", "green").add("Trace", "one").add("Trace", "two, three").put("lower-case", "a: b");
    for (String payload : List.of("with payload", "")) {
      sender.publish(subject, "answers.here", sent, Suite.bytes(payload));
      Message message = Suite.next(sub);
      Suite.same(Suite.text(message), payload, "payload");
      Suite.same(message.getReplyTo(), "answers.here", "reply");
      Suite.same(message.getHeaders(), sent, "headers");
      Suite.same(message.getHeaders().get("Trace"), List.of("one", "two, three"), "the repeated key");
    }
    sender.publish(subject, Suite.bytes("bare"));
    Suite.check(!Suite.next(sub).hasHeaders(), "a message without headers came with some");

    echo(t, t.subject("echo"));
    Message answer = sender.request(t.subject("echo"), sent, Suite.bytes("q"), Suite.PATIENCE);
    Suite.check(answer != null, "no answer");
    Suite.same(answer.getHeaders(), sent, "the answer's headers");
  }

  /** A client that has not asked for headers gets the message without them. */
  private static void withoutHeaders(Suite.Test t) throws Exception {
    Connection plain = t.connect(t.options(t.plain).noHeaders().noNoResponders());
    Connection sender = t.connect();
    Subscription sub = plain.subscribe(t.subject("note"));
    Suite.flush(plain);
    for (String payload : List.of("stripped", "")) {
      sender.publish(t.subject("note"), "answers.here", new Headers().put("Color", "green"), Suite.bytes(payload));
      Message message = Suite.next(sub);
      Suite.same(Suite.text(message), payload, "payload");
      Suite.same(message.getReplyTo(), "answers.here", "reply");
      Suite.check(!message.hasHeaders(), "headers arrived");
    }
  }

  private static int subscriptions(Suite.Test t) throws Exception {
    int sum = 0;
    for (JsonValue connection : t.plain.monitoring("/connz?limit=1024").map.get("connections").array) {
      JsonValue name = connection.map.get("name");
      if (name != null && name.string.equals("java-" + t.name)) {
        sum += connection.map.get("subscriptions").i;
      }
    }
    return sum;
  }

  private static void autoUnsubscribe(Suite.Test t) throws Exception {
    Connection receiver = t.connect();
    Connection sender = t.connect();
    String subject = t.subject("few");
    Subscription before = receiver.subscribe(subject);
    before.unsubscribe(10);
    Subscription after = receiver.subscribe(subject);
    Suite.flush(receiver);
    for (int i = 0; i < 3; i++) {
      sender.publish(subject, Suite.bytes("" + i));
      Suite.next(after);
    }
    after.unsubscribe(5); // the three delivered ones count
    Suite.flush(receiver);
    Suite.same(subscriptions(t), 2, "subscriptions the server counts");
    for (int i = 3; i < 5; i++) {
      sender.publish(subject, Suite.bytes("" + i));
    }
    // The client stops at max by itself, so the server is asked as well.
    Suite.eventually("the server dropped the one that has had its five", () -> subscriptions(t) == 1);
    for (int i = 5; i < 20; i++) {
      sender.publish(subject, Suite.bytes("" + i));
    }
    Suite.flush(sender);
    Suite.flush(receiver);
    for (int i = 0; i < 10; i++) {
      Suite.same(Suite.nextText(before), "" + i, "max given at once");
    }
    for (int i = 3; i < 5; i++) {
      Suite.same(Suite.nextText(after), "" + i, "max given later");
    }
    Suite.fails(IllegalStateException.class, "max given at once", () -> before.nextMessage(10));
    Suite.fails(IllegalStateException.class, "max given later", () -> after.nextMessage(10));
    Suite.eventually("the server dropped both subscriptions", () -> subscriptions(t) == 0);

    // A member that has had its share leaves the group to the others.
    Subscription limited = receiver.subscribe(t.subject("queue"), "q");
    limited.unsubscribe(2);
    Subscription rest = sender.subscribe(t.subject("queue"), "q");
    Suite.flush(receiver);
    Suite.flush(sender);
    for (int i = 0; i < 200; i++) {
      sender.publish(t.subject("queue"), Suite.bytes("" + i));
    }
    for (int i = 0; i < 198; i++) {
      Suite.next(rest);
    }
    Suite.next(limited);
    Suite.next(limited);
    Suite.expectNothing(sender, rest);
  }

  private static byte[] random(int size) {
    byte[] data = new byte[size];
    new Random(size).nextBytes(data);
    return data;
  }

  private static void maxPayloadExact(Suite.Test t) throws Exception {
    Connection receiver = t.connect();
    Connection sender = t.connect();
    Subscription sub = receiver.subscribe(t.subject("full"));
    Suite.flush(receiver);
    Suite.same(sender.getMaxPayload(), 1L << 20, "max_payload");
    byte[] payload = random(1 << 20);
    sender.publish(t.subject("full"), payload);
    Suite.check(Arrays.equals(Suite.next(sub).getData(), payload), "the payload changed on its way");

    Suite.Server small = t.start("max_payload: 1000");
    Connection connection = t.connect(t.options(small));
    Suite.same(connection.getMaxPayload(), 1000L, "max_payload");
    Subscription echoed = connection.subscribe("echoed");
    byte[] short1000 = random(1000);
    connection.publish("echoed", short1000);
    Suite.check(Arrays.equals(Suite.next(echoed).getData(), short1000), "the payload changed on its way");
  }

  private static void maxPayloadExceeded(Suite.Test t) throws Exception {
    Connection checking = t.connect();
    byte[] payload = random((1 << 20) + 1);
    Suite.fails(IllegalArgumentException.class, "publish max_payload + 1 bytes", () -> {
      checking.publish(t.subject("over"), payload);
      return "success";
    });
    Suite.flush(checking); // the client refused it, so the connection is untouched

    // jnats can be told not to look: then the server answers and closes.
    Suite.Watch watch = new Suite.Watch();
    Connection trusting = t.connect(t.options(t.plain).clientSideLimitChecks(false).noReconnect()
        .errorListener(watch).connectionListener(watch));
    Subscription over = checking.subscribe(t.subject("over"));
    Suite.flush(checking);
    trusting.publish(t.subject("over"), payload);
    watch.waitFor(io.nats.client.ConnectionListener.Events.CLOSED);
    String error = watch.errors.poll();
    // The reset of the unread payload may overtake the error on its way.
    Suite.check(error == null || error.equalsIgnoreCase("Maximum Payload Violation"), "error %s", error);
    Suite.expectNothing(checking, over);
  }

  private static void largePayload(Suite.Test t) throws Exception {
    echo(t, t.subject("echo"));
    Connection connection = t.connect();
    for (int size : new int[] {1 << 20, (1 << 20) - 1, 65536, 65535, 4096, 511, 1, 0, 1 << 20, 1 << 20, 1 << 20}) {
      byte[] payload = random(size);
      Message answer = connection.request(t.subject("echo"), payload, Suite.PATIENCE);
      Suite.check(answer != null, "no answer to %d bytes", size);
      Suite.check(Arrays.equals(answer.getData(), payload), "%d bytes came back changed", size);
    }
  }

  private static void ordering100k(Suite.Test t) throws Exception {
    final int messages = 100_000;
    Connection receiver = t.connect();
    Connection sender = t.connect();
    String[] subjects = {t.subject("count.a"), t.subject("count.b")};
    Subscription sub = receiver.subscribe(t.subject("count.*"));
    Suite.flush(receiver);
    Thread publishing = new Thread(() -> {
      for (int i = 0; i < messages; i++) {
        sender.publish(subjects[i % 2], Suite.bytes("" + i));
      }
    });
    publishing.start();
    for (int i = 0; i < messages; i++) {
      Message message = Suite.next(sub);
      Suite.check(Suite.text(message).equals("" + i) && message.getSubject().equals(subjects[i % 2]),
          "message %s on %s instead of %d", Suite.text(message), message.getSubject(), i);
    }
    publishing.join();
    Suite.flush(sender);
    Suite.expectNothing(receiver, sub);
  }

  private static void flushRtt(Suite.Test t) throws Exception {
    Connection a = t.connect();
    Connection b = t.connect();
    Subscription own = a.subscribe(t.subject("x"));
    Subscription foreign = b.subscribe(t.subject("x"));
    Suite.flush(a);
    Suite.flush(b);
    // After A's flush the server has routed its messages; B's PONG comes behind them. No wait is needed on either side.
    for (int round = 1; round <= 100; round++) {
      for (int i = 0; i < 10; i++) {
        a.publish(t.subject("x"), Suite.bytes("flush"));
      }
      Suite.flush(a);
      Suite.same(own.getPendingMessageCount(), 10L * round, "messages when the own flush returned");
      Suite.flush(b);
      Suite.same(foreign.getPendingMessageCount(), 10L * round, "messages when both flushes returned");
    }
    for (int i = 0; i < 10; i++) {
      Duration rtt = a.RTT();
      Suite.check(rtt.toNanos() > 0 && rtt.toSeconds() < 5, "rtt of %s", rtt);
    }
  }

  private static void noEcho(Suite.Test t) throws Exception {
    Connection quiet = t.connect(t.options(t.plain).noEcho());
    Connection other = t.connect();
    Subscription own = quiet.subscribe(t.subject("x"));
    Subscription foreign = other.subscribe(t.subject("x"));
    Suite.flush(quiet);
    Suite.flush(other);
    quiet.publish(t.subject("x"), Suite.bytes("from quiet"));
    Suite.same(Suite.nextText(foreign), "from quiet", "the other connection");
    Suite.expectNothing(quiet, own);
    other.publish(t.subject("x"), Suite.bytes("from other"));
    Suite.same(Suite.nextText(own), "from other", "the quiet connection");
  }

  private static void verbosePedantic(Suite.Test t) throws Exception {
    Connection connection = t.connect(t.options(t.plain).verbose().pedantic());
    Subscription sub = connection.subscribe(t.subject("x"));
    for (int i = 0; i < 100; i++) {
      connection.publish(NatsMessage.builder().subject(t.subject("x")).data("" + i).build());
    }
    for (int i = 0; i < 100; i++) {
      Suite.same(Suite.nextText(sub), "" + i, "message");
    }
    Suite.flush(connection);
    Suite.check(connection.getStatistics().getOKs() >= 101, "%d +OK for 101 verbs", connection.getStatistics().getOKs());
    Suite.same(connection.getStatistics().getErrs(), 0L, "-ERR");
  }

  private Messaging() {}
}
