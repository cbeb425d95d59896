import io.nats.client.Connection;
import io.nats.client.ConnectionListener;
import io.nats.client.ErrorListener;
import io.nats.client.Message;
import io.nats.client.Nats;
import io.nats.client.Options;
import io.nats.client.Subscription;
import io.nats.client.support.JsonParser;
import io.nats.client.support.JsonValue;
import java.io.IOException;
import java.io.InputStream;
import java.net.HttpURLConnection;
import java.net.URL;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Deque;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Callable;
import java.util.concurrent.ConcurrentLinkedDeque;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/**
 * jnats talks to the broker. Here is the part that is not a test: reports in the form run.py reads, and the control port
 * through which servers start. Everything a test opens is closed when it ends, so that tests share nothing but the plain server.
 */
public final class Suite {
  /** How long a condition may take on a busy machine before the test says that it will not come true. */
  static final Duration PATIENCE = Duration.ofSeconds(10);

  /** A test that hangs ends here, so that the others still get their turn. */
  private static final Duration TEST_LIMIT = Duration.ofSeconds(40);

  /** Not a bug of the test but its finding. */
  static final class Failure extends RuntimeException {
    private static final long serialVersionUID = 1;

    Failure(String reason) {
      super(reason);
    }
  }

  interface Body {
    void run(Test t) throws Exception;
  }

  static void check(boolean condition, String format, Object... args) {
    if (!condition) {
      throw new Failure(args.length == 0 ? format : String.format(format, args));
    }
  }

  static void same(Object got, Object wanted, String what) {
    check(wanted.equals(got), "%s: %s instead of %s", what, got, wanted);
  }

  /** Runs what must fail with the given kind of exception, and hands that back. */
  static <E extends Throwable> E fails(Class<E> kind, String what, Callable<?> body) {
    Object result;
    try {
      result = body.call();
    } catch (Throwable thrown) {
      check(kind.isInstance(thrown), "%s: %s instead of %s", what, thrown, kind.getSimpleName());
      return kind.cast(thrown);
    }
    throw new Failure(what + ": no error but " + result);
  }

  /** Waits for a condition instead of a time. */
  static void eventually(String what, Callable<Boolean> condition) throws Exception {
    long deadline = System.nanoTime() + PATIENCE.toNanos();
    while (!condition.call()) {
      check(System.nanoTime() < deadline, "not within %s s: %s", PATIENCE.toSeconds(), what);
      Thread.sleep(5);
    }
  }

  /** The next thing a callback put there. */
  static <V> V receive(BlockingQueue<V> queue, String what) throws InterruptedException {
    V value = queue.poll(PATIENCE.toSeconds(), TimeUnit.SECONDS);
    check(value != null, "not within %s s: %s", PATIENCE.toSeconds(), what);
    return value;
  }

  static byte[] bytes(String text) {
    return text.getBytes(StandardCharsets.UTF_8);
  }

  static String text(Message message) {
    return new String(message.getData(), StandardCharsets.UTF_8);
  }

  private static JsonValue http(String method, String url, String body) throws IOException {
    HttpURLConnection exchange = (HttpURLConnection) new URL(url).openConnection();
    exchange.setRequestMethod(method);
    exchange.setReadTimeout((int) TEST_LIMIT.toMillis());
    if (body != null) {
      exchange.setDoOutput(true);
      exchange.setRequestProperty("Content-Type", "application/json");
      exchange.getOutputStream().write(bytes(body));
    }
    boolean good = exchange.getResponseCode() == 200;
    try (InputStream answer = good ? exchange.getInputStream() : exchange.getErrorStream()) {
      String text = answer == null ? "" : new String(answer.readAllBytes(), StandardCharsets.UTF_8);
      check(good, "%s %s: status %s: %s", method, url, exchange.getResponseCode(), text);
      return JsonParser.parse(text);
    }
  }

  static String quoted(String text) {
    StringBuilder json = new StringBuilder("\"");
    for (char c : text.toCharArray()) {
      switch (c) {
        case '"' -> json.append("\\\"");
        case '\\' -> json.append("\\\\");
        case '\n' -> json.append("\\n");
        default -> json.append(c);
      }
    }
    return json.append('"').toString();
  }

  static JsonValue control(String call, String body) throws IOException {
    return http("POST", System.getenv("CLIENTS_CONTROL") + call, body);
  }

  static final class Server {
    final String id;
    final String host;
    final int port;
    final String url;
    final String clientIp;
    private String http;

    Server(JsonValue answer) {
      id = answer.map.get("id").string;
      host = answer.map.get("host").string;
      port = answer.map.get("port").i;
      url = answer.map.get("url").string;
      clientIp = answer.map.get("client_ip").string;
      http = answer.map.get("http").string;
    }

    void restart() throws IOException {
      Server now = new Server(control("/restart", "{\"id\":" + quoted(id) + "}"));
      same(now.port, port, "the port after the restart");
      http = now.http;
    }

    void signal(String name) throws IOException {
      control("/signal", "{\"id\":" + quoted(id) + ",\"signal\":" + quoted(name) + "}");
    }

    void stop(String name) throws IOException {
      control("/stop", "{\"id\":" + quoted(id) + ",\"signal\":" + quoted(name) + "}");
    }

    /** One page of the monitoring port. */
    JsonValue monitoring(String page) throws IOException {
      return http("GET", http + page, null);
    }
  }

  /** What a connection reports, in order: events by name, errors of the server with their text. */
  static final class Watch implements ConnectionListener, ErrorListener {
    final BlockingQueue<String> events = new LinkedBlockingQueue<>();
    final BlockingQueue<String> errors = new LinkedBlockingQueue<>();

    @Override
    @SuppressWarnings("deprecation") // still the interface's only abstract method
    public void connectionEvent(Connection connection, Events event) {
      events.add(event.name());
    }

    @Override
    public void errorOccurred(Connection connection, String error) {
      errors.add(error);
    }

    /** Passes over other events. */
    void waitFor(ConnectionListener.Events event) throws InterruptedException {
      while (!receive(events, "the event " + event).equals(event.name())) {}
    }
  }

  /** One running test. */
  static final class Test {
    final String name;
    final Server plain; // shared by all tests that need nothing special
    private final Deque<AutoCloseable> opened = new ConcurrentLinkedDeque<>();

    Test(String name, Server plain) {
      this.name = name;
      this.plain = plain;
    }

    /** Runs a server of the test's own; config is text in nats-server's grammar. */
    Server start(String config, String... args) throws IOException {
      StringBuilder request = new StringBuilder("{\"config\":" + quoted(config) + ",\"args\":[");
      for (String arg : args) {
        request.append(arg == args[0] ? "" : ",").append(quoted(arg));
      }
      Server server = new Server(control("/start", request.append("]}").toString()));
      opened.push(() -> server.stop("KILL"));
      return server;
    }

    Options.Builder options(Server server) {
      // Not zero: jnats draws the jitter from the numbers below it, and one that is not there ends its reconnect thread.
      return new Options.Builder().server(server.url).connectionName("java-" + name).connectionTimeout(PATIENCE)
          .reconnectWait(Duration.ofMillis(50)).reconnectJitter(Duration.ofMillis(1)).maxReconnects(-1)
          .errorListener(new Watch());
    }

    Connection connect(Options.Builder options) throws IOException, InterruptedException {
      return close(Nats.connect(options.build()));
    }

    Connection connect() throws IOException, InterruptedException {
      return connect(options(plain));
    }

    <C extends AutoCloseable> C close(C resource) {
      opened.push(resource);
      return resource;
    }

    /** The server is shared, so the subject is the test's own. */
    String subject(String rest) {
      return "java." + name + "." + rest;
    }

    private void closeAll() {
      for (AutoCloseable resource : opened) {
        try {
          resource.close();
        } catch (Exception ignored) {
          // It may have ended in the test already.
        }
      }
    }
  }

  static void flush(Connection connection) throws Exception {
    connection.flush(PATIENCE);
  }

  static Message next(Subscription subscription) throws InterruptedException {
    Message message = subscription.nextMessage(PATIENCE);
    check(message != null, "not within %s s: a message on %s", PATIENCE.toSeconds(), subscription.getSubject());
    return message;
  }

  static String nextText(Subscription subscription) throws InterruptedException {
    return text(next(subscription));
  }

  /** Relies on order: whatever the server had for this connection arrives before its PONG. */
  static void expectNothing(Connection connection, Subscription subscription) throws Exception {
    flush(connection);
    Message message = subscription.nextMessage(2);
    check(message == null, "unexpected message %s", message);
  }

  private static String runOne(Test test, Body body) throws InterruptedException {
    BlockingQueue<String> result = new LinkedBlockingQueue<>();
    Thread thread = new Thread(() -> {
      try {
        body.run(test);
        result.add("");
      } catch (Failure failure) {
        result.add(failure.getMessage());
      } catch (Throwable thrown) {
        thrown.printStackTrace();
        result.add(thrown.toString());
      }
    }, test.name);
    thread.setDaemon(true);
    thread.start();
    String reason = result.poll(TEST_LIMIT.toSeconds(), TimeUnit.SECONDS);
    if (reason == null) {
      reason = "still running after " + TEST_LIMIT.toSeconds() + " s";
      for (StackTraceElement frame : thread.getStackTrace()) {
        System.err.println(test.name + ": " + frame);
      }
    }
    test.closeAll();
    return reason;
  }

  public static void main(String[] args) throws Exception {
    // The client logs every lost connection of a restart test.
    java.util.logging.LogManager.getLogManager().reset();
    Map<String, Body> tests = new LinkedHashMap<>();
    Messaging.register(tests);
    Connections.register(tests);
    Secured.register(tests);
    System.out.println("plan " + tests.size());
    System.out.flush();
    Server plain = new Server(control("/start", "{}"));
    String selection = System.getenv().getOrDefault("CLIENTS_ONLY", "");
    List<String> only = List.of(selection.split(","));
    int failed = 0;
    for (Map.Entry<String, Body> one : tests.entrySet()) {
      if (!selection.isEmpty() && !only.contains(one.getKey())) {
        continue;
      }
      long began = System.nanoTime();
      String reason = runOne(new Test(one.getKey(), plain), one.getValue());
      System.out.println("# " + one.getKey() + " took " + (System.nanoTime() - began) / 1_000_000 + " ms");
      if (reason.isEmpty()) {
        System.out.println("ok " + one.getKey());
      } else {
        failed++;
        System.out.println("FAIL " + one.getKey() + ": " + reason.replace("\n", " | "));
      }
      System.out.flush();
    }
    plain.stop("TERM");
    System.exit(failed == 0 ? 0 : 1);
  }

  private Suite() {}
}
