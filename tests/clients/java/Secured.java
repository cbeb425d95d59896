import io.nats.client.Connection;
import io.nats.client.ConnectionListener.Events;
import io.nats.client.Message;
import io.nats.client.Nats;
import io.nats.client.Options;
import io.nats.client.Subscription;
import io.nats.client.support.JsonValue;
import java.io.ByteArrayInputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.spec.PKCS8EncodedKeySpec;
import java.time.Duration;
import java.util.Arrays;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.Random;
import javax.net.ssl.KeyManager;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/** Connections with TLS: whom the client trusts, what it shows, and who speaks first. */
final class Secured {
  static void register(Map<String, Suite.Body> tests) {
    tests.put("tls", Secured::tls);
    tests.put("tls_verify", Secured::tlsVerify);
    tests.put("tls_first", Secured::tlsFirst);
  }

  private static byte[] file(String variable) throws Exception {
    return Files.readAllBytes(Path.of(System.getenv(variable)));
  }

  private static Certificate certificate(String variable) throws Exception {
    return CertificateFactory.getInstance("X.509").generateCertificate(new ByteArrayInputStream(file(variable)));
  }

  private static KeyStore emptyStore() throws Exception {
    KeyStore store = KeyStore.getInstance("PKCS12");
    store.load(null, null);
    return store;
  }

  private static KeyManager[] ownCertificate() throws Exception {
    String pem = new String(file("CLIENTS_KEY"), "US-ASCII").replaceAll("-----[A-Z ]+-----|\\s", "");
    PrivateKey key = KeyFactory.getInstance("EC").generatePrivate(new PKCS8EncodedKeySpec(Base64.getDecoder().decode(pem)));
    KeyStore store = emptyStore();
    char[] password = "none".toCharArray();
    store.setKeyEntry("client", key, password, new Certificate[] {certificate("CLIENTS_CERT")});
    KeyManagerFactory managers = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
    managers.init(store, password);
    return managers.getKeyManagers();
  }

  private static SSLContext trust(KeyManager[] shown) throws Exception {
    KeyStore store = emptyStore();
    store.setCertificateEntry("ca", certificate("CLIENTS_CA"));
    TrustManagerFactory managers = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
    managers.init(store);
    SSLContext context = SSLContext.getInstance("TLS");
    context.init(shown, managers.getTrustManagers(), null);
    return context;
  }

  private static Options.Builder options(Suite.Test t, Suite.Server server, SSLContext context) {
    return t.options(server).server(server.url.replace("nats://", "tls://")).sslContext(context);
  }

  private static void talk(Connection connection, Connection other, String round) throws Exception {
    Subscription sub = other.subscribe("secure." + round);
    other.createDispatcher(message -> other.publish(message.getReplyTo(), message.getData())).subscribe("echo." + round);
    Suite.flush(other);
    byte[][] payloads = {{}, new byte[5], new byte[16 * 1024], new byte[(int) connection.getMaxPayload()]};
    Random chance = new Random(1);
    for (byte[] payload : payloads) {
      chance.nextBytes(payload);
      connection.publish("secure." + round, payload);
    }
    for (byte[] payload : payloads) {
      Suite.check(Arrays.equals(Suite.next(sub).getData(), payload), "a payload of %s bytes is another", payload.length);
    }
    Message answer = connection.request("echo." + round, Suite.bytes("there?"), Suite.PATIENCE);
    Suite.check(answer != null && Suite.text(answer).equals("there?"), "answer %s", answer);
  }

  private static void talkOverTls(Suite.Test t, Suite.Server server, SSLContext context, boolean first) throws Exception {
    List<Suite.Watch> watches = List.of(new Suite.Watch(), new Suite.Watch());
    Connection[] ends = new Connection[2];
    for (int n = 0; n < 2; n++) {
      Options.Builder options = options(t, server, context).connectionListener(watches.get(n)).errorListener(watches.get(n));
      ends[n] = t.connect(first ? options.tlsFirst() : options);
    }
    talk(ends[0], ends[1], "before");
    List<JsonValue> rows = server.monitoring("/connz").map.get("connections").array;
    Suite.same(rows.size(), 2, "connections");
    for (JsonValue row : rows) {
      Suite.check(row.map.get("tls_version") != null && "1.3".equals(row.map.get("tls_version").string), "no TLS 1.3: %s", row);
    }
    server.restart();
    for (Suite.Watch watch : watches) {
      watch.waitFor(Events.DISCONNECTED);
      watch.waitFor(Events.RESUBSCRIBED);
    }
    talk(ends[0], ends[1], "after");
  }

  private static void refused(Suite.Test t, Suite.Server server, SSLContext context) throws Exception {
    Options wrong = options(t, server, context).maxReconnects(0).connectionTimeout(Duration.ofSeconds(3)).build();
    Suite.fails(Exception.class, "connect", () -> t.close(Nats.connect(wrong)));
  }

  private static void tls(Suite.Test t) throws Exception {
    Suite.Server server = t.start("tls { @tls }");
    talkOverTls(t, server, trust(null), false);
    refused(t, server, SSLContext.getDefault());
  }

  private static void tlsVerify(Suite.Test t) throws Exception {
    Suite.Server server = t.start("tls { @tls, verify: true }");
    talkOverTls(t, server, trust(ownCertificate()), false);
    refused(t, server, trust(null));
  }

  private static void tlsFirst(Suite.Test t) throws Exception {
    talkOverTls(t, t.start("tls { @tls, handshake_first: true }"), trust(null), true);
  }

  private Secured() {}
}
