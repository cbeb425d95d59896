//! The life of a connection: who may connect, what it learns of the server, and what it sees when either side goes.

use std::time::{Duration, Instant};

use async_nats::connection::State;
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, RequestErrorKind, ServerError};
use futures_util::StreamExt;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;

use crate::check;
use crate::harness::*;

pub async fn wait_for(events: &mut mpsc::UnboundedReceiver<Event>, wanted: Event) -> Outcome {
    loop {
        if receive(events, &format!("the event {wanted:?}")).await? == wanted {
            return Ok(());
        }
    }
}

pub async fn drain(t: Test) -> Outcome {
    let sender = t.connect().await?;

    // A subscription: what was sent is handled, however slowly, and nothing after it.
    let receiver = t.connect().await?;
    let mut sub = receiver.subscribe(t.subject("sub")).await?;
    settle(&receiver).await?;
    for i in 0..100 {
        sender.publish(t.subject("sub"), i.to_string().into()).await?;
    }
    settle(&sender).await?;
    sub.drain().await?;
    for i in 0..100 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        check!(next_text(&mut sub).await? == i.to_string(), "message {i} is missing");
    }
    check!(within("the drained subscription ended", sub.next()).await?.is_none(), "a message after the drain");
    settle(&receiver).await?; // the connection stays

    // A connection: its subscriptions end once they have had everything, then it closes.
    let (options, mut events) = watched(t.options());
    let worker = options.connect(&t.plain.url).await?;
    let mut jobs = worker.subscribe(t.subject("jobs")).await?;
    let mut results = sender.subscribe(t.subject("results")).await?;
    settle(&worker).await?;
    settle(&sender).await?;
    for i in 0..100 {
        sender.publish(t.subject("jobs"), i.to_string().into()).await?;
        worker.publish(t.subject("results"), i.to_string().into()).await?;
    }
    settle(&sender).await?;
    worker.drain().await?;
    for i in 0..100 {
        check!(next_text(&mut jobs).await? == i.to_string(), "job {i} is missing");
        check!(next_text(&mut results).await? == i.to_string(), "result {i} is missing");
    }
    check!(within("the drained subscription ended", jobs.next()).await?.is_none(), "a job after the drain");
    wait_for(&mut events, Event::Closed).await?;
    check!(worker.subscribe("late").await.is_err(), "the drained connection took a subscription");
    let error = sender.request(t.subject("jobs"), "".into()).await.err().ok_or("the drained worker answered")?;
    check!(error.kind() == RequestErrorKind::NoResponders, "{error}");
    Ok(())
}

pub fn returning(options: ConnectOptions) -> (ConnectOptions, mpsc::UnboundedReceiver<Event>) {
    watched(options.reconnect_delay_callback(|_| Duration::from_millis(50)))
}

pub async fn reconnect(t: Test) -> Outcome {
    let mut server = t.start("", &[]).await?;
    let (options, mut events) = returning(t.options());
    let client = options.connect(&server.url).await?;
    wait_for(&mut events, Event::Connected).await?;
    let mut literal = client.subscribe("news.today").await?;
    let mut pattern = client.subscribe("news.>").await?;
    let mut member = client.queue_subscribe("jobs.*", "workers".into()).await?;
    let mut questions = client.subscribe("echo").await?;
    let answering = client.clone();
    tokio::spawn(async move {
        while let Some(message) = questions.next().await {
            if let Some(reply) = message.reply {
                let _ = answering.publish(reply, message.payload).await;
            }
        }
    });
    settle(&client).await?;
    let mut id = client.server_info().server_id;
    for _ in 0..2 {
        t.restart(&mut server).await?;
        wait_for(&mut events, Event::Disconnected).await?;
        wait_for(&mut events, Event::Connected).await?;
        settle(&client).await?;
        let now = client.server_info().server_id;
        check!(now != id, "the restarted server has the old server id");
        id = now;

        let sender = t.options().connect(&server.url).await?;
        sender.publish("news.today", "again".into()).await?;
        sender.publish("jobs.one", "again".into()).await?;
        check!(next_text(&mut literal).await? == "again", "the literal subscription was not restored");
        check!(next_text(&mut pattern).await? == "again", "the wildcard subscription was not restored");
        check!(next_text(&mut member).await? == "again", "the queue subscription was not restored");
        let answer = named("request to the reconnected client", sender.request("echo", "there?".into()).await)?;
        check!(answer.payload == "there?", "answer {:?}", answer.payload);
        named("request of the reconnected client", client.request("echo", "me?".into()).await)?;
        expect_nothing(&client, &mut literal).await?;
    }
    Ok(())
}

/// What was published while the server was away is kept by the client and arrives once it is back.
pub async fn reconnect_buffered(t: Test) -> Outcome {
    let server = t.start("", &[]).await?;
    let (options, mut events) = returning(t.options());
    let client = options.connect(&server.url).await?;
    let mut sub = client.subscribe("kept").await?;
    settle(&client).await?;
    let restarting = tokio::spawn(control("/restart", json!({"id": server.id, "down_ms": 1000})));
    wait_for(&mut events, Event::Disconnected).await?;
    for i in 0..100 {
        client.publish("kept", i.to_string().into()).await?;
    }
    within("the server is back", restarting).await???;
    for i in 0..100 {
        let got = next_text(&mut sub).await?;
        check!(got == i.to_string(), "message {got} instead of {i}");
    }
    Ok(())
}

/// A connection that speaks the protocol by hand, as no client library would.
struct Raw(BufReader<TcpStream>);

impl Raw {
    async fn connect(server: &Server, receive_buffer_bytes: u32, greeting: &str) -> Outcome<Raw> {
        let address = format!("{}:{}", server.host, server.port).parse()?;
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(receive_buffer_bytes)?;
        let mut raw = Raw(BufReader::new(socket.connect(address).await?));
        raw.expect("INFO ").await?;
        raw.0.write_all(greeting.as_bytes()).await?;
        raw.expect("PONG").await?;
        Ok(raw)
    }

    async fn expect(&mut self, prefix: &str) -> Outcome {
        let mut line = String::new();
        within(prefix, self.0.read_line(&mut line)).await??;
        check!(line.starts_with(prefix), "{line:?} instead of {prefix}");
        Ok(())
    }

    /// Reads what is left and then the end; a reset is an end as well.
    async fn expect_closed(&mut self) -> Outcome {
        let mut rest = Vec::new();
        let _ = within("the server closes the connection", self.0.read_to_end(&mut rest)).await?;
        Ok(())
    }
}

pub async fn slow_consumer(t: Test) -> Outcome {
    // Limits far below the defaults, so that little traffic fills them, whatever the system's socket buffers take.
    let server = t.start("max_pending: 1MB\nmax_payload: 64KB\nwrite_deadline: \"5s\"\n", &[]).await?;
    let mut stuck = Raw::connect(&server, 4096, "CONNECT {\"verbose\":false}\r\nSUB flood 1\r\nPING\r\n").await?;
    let healthy = t.options().connect(&server.url).await?;
    let sender = t.options().connect(&server.url).await?;
    let mut sub = healthy.subscribe("flood").await?;
    settle(&healthy).await?;
    let count = || async {
        let page = server.monitoring("/varz").await?;
        page["slow_consumers"].as_u64().ok_or_else(|| "no slow_consumers in /varz".into())
    };
    let at_first: Outcome<u64> = count().await;
    check!(at_first? == 0, "slow consumers before anything was sent");

    // The healthy one is never more than 512 KiB behind, so whatever it would miss is the server's fault.
    let deadline = Instant::now() + 2 * PATIENCE;
    let mut sent = 0u32;
    loop {
        check!(Instant::now() < deadline, "no slow consumer after {sent} messages of 32 KiB");
        for i in sent..sent + 16 {
            let mut payload = vec![b'x'; 32 * 1024];
            payload[..4].copy_from_slice(&i.to_be_bytes());
            sender.publish("flood", payload.into()).await?;
        }
        for i in sent..sent + 16 {
            let message = next(&mut sub).await?;
            check!(message.payload.len() == 32 * 1024, "{} bytes instead of 32 KiB", message.payload.len());
            check!(message.payload[..4] == i.to_be_bytes(), "the healthy subscriber got another message than {i}");
        }
        sent += 16;
        let now: Outcome<u64> = count().await;
        match now? {
            0 => continue,
            1 => break,
            n => return Err(format!("{n} slow consumers instead of one").into()),
        }
    }
    stuck.expect_closed().await?;
    sender.publish("flood", "after".into()).await?;
    check!(next_text(&mut sub).await? == "after", "the healthy subscriber missed the message after the flood");
    expect_nothing(&healthy, &mut sub).await
}

async fn works(client: &Client) -> Outcome {
    let mut sub = client.subscribe("works").await?;
    client.publish("works", "yes".into()).await?;
    check!(next_text(&mut sub).await? == "yes", "a message went astray");
    Ok(())
}

async fn refused(server: &Server, what: &str, options: ConnectOptions) -> Outcome {
    match within(what, options.connect(&server.url)).await? {
        Ok(_) => Err(format!("{what} was let in").into()),
        Err(error) if error.kind() == ConnectErrorKind::AuthorizationViolation => Ok(()),
        Err(error) => Err(format!("{what}: {error}").into()),
    }
}

fn user(options: ConnectOptions, user: &str, password: &str) -> ConnectOptions {
    options.user_and_password(user.into(), password.into())
}

/// bcrypt of "s3cret", at the lowest cost.
const BCRYPT_SECRET: &str = "$2b$04$abcdefghijklmnopqrstuuLZYjhNQAOdpbzt4WxWlUHjv1wsyH5DG";

pub async fn auth_user_pass(t: Test) -> Outcome {
    let server = t.start("", &["--user", "bob", "--pass", "s3cret"]).await?;
    let client = user(t.options(), "bob", "s3cret").connect(&server.url).await?;
    check!(client.server_info().auth_required, "INFO does not say that authorization is required");
    works(&client).await?;

    let config =
        "authorization { users: [ { user: alice, password: \"wonder land\" }, { user: bob, password: s3cret } ] }";
    let several = t.start(config, &[]).await?;
    works(&user(t.options(), "alice", "wonder land").connect(&several.url).await?).await?;
    works(&user(t.options(), "bob", "s3cret").connect(&several.url).await?).await?;

    let hashed = t.start(&format!("authorization {{ user: bob, password: \"{BCRYPT_SECRET}\" }}"), &[]).await?;
    works(&user(t.options(), "bob", "s3cret").connect(&hashed.url).await?).await
}

pub async fn auth_token(t: Test) -> Outcome {
    let server = t.start("", &["--auth", "s3cret"]).await?;
    works(&t.options().token("s3cret".into()).connect(&server.url).await?).await?;
    let quoted = t.start("authorization { token: \"t0k en\" }", &[]).await?;
    works(&t.options().token("t0k en".into()).connect(&quoted.url).await?).await
}

pub async fn auth_failure(t: Test) -> Outcome {
    let server = t.start("", &["--user", "bob", "--pass", "s3cret"]).await?;
    refused(&server, "a wrong password", user(t.options(), "bob", "secret")).await?;
    refused(&server, "an empty password", user(t.options(), "bob", "")).await?;
    refused(&server, "a wrong user", user(t.options(), "Bob", "s3cret")).await?;
    refused(&server, "a token instead of a user", t.options().token("s3cret".into())).await?;
    refused(&server, "nobody", t.options()).await?;
    works(&user(t.options(), "bob", "s3cret").connect(&server.url).await?).await?;

    let token = t.start("", &["--auth", "s3cret"]).await?;
    refused(&token, "a wrong token", t.options().token("s3cre".into())).await?;
    refused(&token, "a user instead of a token", user(t.options(), "bob", "s3cret")).await?;
    refused(&token, "no token", t.options()).await?;
    works(&t.options().token("s3cret".into()).connect(&token.url).await?).await?;

    let hashed = t.start(&format!("authorization {{ user: bob, password: \"{BCRYPT_SECRET}\" }}"), &[]).await?;
    refused(&hashed, "a wrong password against a hash", user(t.options(), "bob", "secret")).await?;
    refused(&hashed, "the hash itself", user(t.options(), "bob", BCRYPT_SECRET)).await
}

pub async fn permissions_violation(t: Test) -> Outcome {
    let config = r#"authorization {
  users: [
    { user: bob, password: pw, permissions: {
        publish: { allow: ["open.>", "_INBOX.>", "nobody.>"], deny: "open.secret" }
        subscribe: { allow: ["open.>", "_INBOX.>"], deny: ["open.hidden.*"] } } }
    { user: boss, password: pw }
  ]
}"#;
    let server = t.start(config, &[]).await?;
    let (options, mut events) = watched(user(t.options(), "bob", "pw"));
    let bob = options.connect(&server.url).await?;
    wait_for(&mut events, Event::Connected).await?;
    let boss = user(t.options(), "boss", "pw").connect(&server.url).await?;
    let mut opened = boss.subscribe("open.>").await?;
    let mut closed = boss.subscribe("closed.>").await?;
    let mut single = boss.subscribe("*").await?;
    settle(&boss).await?;

    for subject in ["closed", "open", "open.secret", "closed.x"] {
        bob.publish(subject, "x".into()).await?;
        let wanted = ServerError::Other(format!("Permissions Violation for Publish to \"{subject}\""));
        let event = receive(&mut events, &wanted.to_string()).await?;
        check!(event == Event::ServerError(wanted), "{event:?} after publishing on {subject}");
    }
    let mut refused = Vec::new();
    for subject in ["closed", "open", ">", "*.>", "open.hidden.x", "open.hidden.*"] {
        refused.push(bob.subscribe(subject).await?);
        let wanted = ServerError::Other(format!("Permissions Violation for Subscription to \"{subject}\""));
        let event = receive(&mut events, &wanted.to_string()).await?;
        check!(event == Event::ServerError(wanted), "{event:?} after subscribing to {subject}");
    }
    let mut member = bob.queue_subscribe("closed", "workers".into()).await?;
    let wanted =
        ServerError::Other("Permissions Violation for Subscription to \"closed\" using queue \"workers\"".into());
    let event = receive(&mut events, &wanted.to_string()).await?;
    check!(event == Event::ServerError(wanted), "{event:?} after subscribing as a member");

    // Overlap with a denied pattern is no violation: the subscription holds, denied subjects are kept from it.
    let mut wide = bob.subscribe("open.>").await?;
    settle(&bob).await?;
    for sub in [&mut opened, &mut closed, &mut single] {
        expect_nothing(&boss, sub).await?; // nothing of what bob published got through
    }
    for subject in ["open.hidden.x", "closed", "open.x"] {
        boss.publish(subject, subject.into()).await?;
    }
    check!(next_text(&mut wide).await? == "open.x", "a denied subject reached the wider subscription");
    expect_nothing(&bob, &mut member).await?;
    for sub in &mut refused {
        expect_no_more(sub).await?;
    }
    bob.publish("open.y", "still there".into()).await?;
    for wanted in ["open.hidden.x", "open.x", "still there"] {
        check!(next_text(&mut opened).await? == wanted, "{wanted:?} is missing");
    }
    check!(bob.connection_state() == State::Connected, "the connection did not survive");
    check!(events.try_recv().is_err(), "an event too many");
    Ok(())
}

pub async fn server_info(t: Test) -> Outcome {
    let (client, other) = (t.connect().await?, t.connect().await?);
    let info = client.server_info();
    let mut numbers = info.version.split(['.', '-']);
    for part in ["major", "minor", "patch"] {
        check!(
            numbers.next().is_some_and(|n| n.parse::<u32>().is_ok()),
            "no {part} number in version {:?}",
            info.version
        );
    }
    check!(client.is_server_compatible(2, 10, 0), "version {} is no level of today", info.version);
    check!(info.server_id.len() == 56 && info.server_id.starts_with('N'), "server id {}", info.server_id);
    check!(info.server_name == info.server_id, "server name {} differs from the id", info.server_name);
    check!(info.host == t.plain.host && info.port == t.plain.port, "{}:{} is not its address", info.host, info.port);
    check!(info.proto == 1 && info.headers, "proto {} headers {}", info.proto, info.headers);
    check!(info.max_payload == 1 << 20, "max_payload {}", info.max_payload);
    check!(!info.auth_required && !info.tls_required, "INFO asks for authorization or TLS");
    check!(info.client_id > 0 && info.client_id != other.server_info().client_id, "client id {}", info.client_id);
    check!(info.client_ip == t.plain.client_ip, "client ip {}", info.client_ip);
    check!(info.connect_urls.is_empty(), "a lone server advertises {:?}", info.connect_urls);
    check!(!info.lame_duck_mode && !info.jetstream && !info.go.is_empty(), "{info:?}");

    let advertised =
        t.start("server_name: blue\nclient_advertise: \"127.0.0.7:4333\"\nmax_payload: 4KB\n", &[]).await?;
    let info = t.options().connect(&advertised.url).await?.server_info();
    check!(info.server_name == "blue", "server name {}", info.server_name);
    check!(info.host == "127.0.0.7" && info.port == 4333, "{}:{} is advertised", info.host, info.port);
    check!(info.max_payload == 4096, "max_payload {}", info.max_payload);
    Ok(())
}

pub async fn lame_duck(t: Test) -> Outcome {
    let server = t.start("lame_duck_duration: \"30s\"\nlame_duck_grace_period: \"500ms\"\n", &[]).await?;
    let (options, mut events) = watched(t.options());
    let client = options.connect(&server.url).await?;
    wait_for(&mut events, Event::Connected).await?;
    // The server sends asynchronous INFO only to those that have had a PONG: connecting includes it, and so may this.
    settle(&client).await?;
    control("/signal", json!({"id": server.id, "signal": "USR2"})).await?;
    let event = receive(&mut events, "the event of lame duck mode").await?;
    check!(event == Event::LameDuckMode, "{event:?} instead of lame duck mode");
    check!(t.options().connect(&server.url).await.is_err(), "the lame duck took a new connection");
    wait_for(&mut events, Event::Disconnected).await
}

pub async fn callbacks(t: Test) -> Outcome {
    let server = t.start("", &[]).await?;
    let (options, mut events) = watched(t.options().max_reconnects(1));
    let client = options.connect(&server.url).await?;
    wait_for(&mut events, Event::Connected).await?;
    settle(&client).await?;
    check!(client.connection_state() == State::Connected, "state {}", client.connection_state());
    control("/stop", json!({"id": server.id, "signal": "INT"})).await?;
    let event = receive(&mut events, "the event of the lost connection").await?;
    check!(event == Event::Disconnected, "{event:?} instead of the lost connection");
    check!(client.connection_state() != State::Connected, "still connected to the stopped server");
    let error = t.options().connect(&server.url).await.err().ok_or("connected to the stopped server")?;
    check!(error.kind() == ConnectErrorKind::Io, "{error} from the stopped server");

    let (options, mut events) = watched(t.options());
    let client = options.connect(&t.plain.url).await?;
    wait_for(&mut events, Event::Connected).await?;
    client.drain().await?;
    for wanted in [Event::Draining, Event::Closed] {
        let event = receive(&mut events, &wanted.to_string()).await?;
        check!(event == wanted, "{event:?} instead of {wanted:?}");
    }
    Ok(())
}

/// What the client tells the server shows up in its monitoring.
pub async fn monitored(t: Test) -> Outcome {
    let client = t.options().name("watch me, too").connect(&t.plain.url).await?;
    let mut sub = client.subscribe(t.subject("x")).await?;
    for _ in 0..5 {
        client.publish(t.subject("x"), "12345".into()).await?;
        next(&mut sub).await?;
    }
    let id = client.server_info().client_id;
    let page = t.plain.monitoring(&format!("/connz?cid={id}&subs=1")).await?;
    let connection = &page["connections"][0];
    for (key, wanted) in [
        ("cid", json!(id)),
        ("name", json!("watch me, too")),
        ("lang", json!("rust")),
        ("in_msgs", json!(5)),
        ("out_msgs", json!(5)),
        ("in_bytes", json!(25)),
        ("out_bytes", json!(25)),
        ("subscriptions", json!(1)),
        ("subscriptions_list", json!([t.subject("x")])),
    ] {
        check!(connection[key] == wanted, "{key} is {} instead of {wanted} in /connz", connection[key]);
    }
    Ok(())
}

/// A server that pings: the client answers, and nobody is cut off.
pub async fn keep_alive(t: Test) -> Outcome {
    let server = t.start("ping_interval: \"100ms\"\nping_max: 2\n", &[]).await?;
    let (options, mut events) = watched(t.options().ping_interval(Duration::from_millis(100)));
    let client = options.connect(&server.url).await?;
    wait_for(&mut events, Event::Connected).await?;
    // The one that never answers is the clock: it has gone through ping_max pings.
    let mut silent = Raw::connect(&server, 65536, "CONNECT {\"verbose\":false}\r\nPING\r\n").await?;
    silent.expect_closed().await?;
    check!(client.connection_state() == State::Connected, "a client that answers pings was cut off");
    check!(events.try_recv().is_err(), "an event where there should be none");
    works(&client).await
}
