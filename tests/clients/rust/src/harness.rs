//! The part of the suite that is not a test: reports in the form run.py reads, and the control port through which it starts
//! servers. Everything a test opens is closed when it ends, so that tests share nothing but the plain server.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_nats::{Client, ConnectOptions, Event, Message, RequestErrorKind, Subscriber};
use futures_util::StreamExt;
use serde_json::{json, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// How long a condition may take on a busy machine before the test says that it will not come true.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A test that hangs ends here, so that the others still get their turn.
const TEST_LIMIT: Duration = Duration::from_secs(40);

pub type Outcome<V = ()> = Result<V, Box<dyn Error + Send + Sync>>;
pub type Body = fn(Test) -> Pin<Box<dyn Future<Output = Outcome> + Send>>;

#[macro_export]
macro_rules! check {
    ($condition:expr, $($reason:tt)+) => {
        if !$condition {
            return Err(format!($($reason)+).into());
        }
    };
}

/// `table![name, …]`: each test function with its name.
#[macro_export]
macro_rules! table {
    ($($name:ident),* $(,)?) => {
        vec![$((stringify!($name), (|t| Box::pin($name(t))) as $crate::harness::Body)),*]
    };
}

pub async fn within<V>(what: &str, future: impl Future<Output = V>) -> Outcome<V> {
    tokio::time::timeout(PATIENCE, future).await.map_err(|_| format!("not within {PATIENCE:?}: {what}").into())
}

/// Says what was being done when it went wrong.
pub fn named<V, E: std::fmt::Display>(what: &str, result: Result<V, E>) -> Outcome<V> {
    result.map_err(|error| format!("{what}: {error}").into())
}

/// The next message of a subscription; its end is an error.
pub async fn next(subscriber: &mut Subscriber) -> Outcome<Message> {
    within("the next message", subscriber.next()).await?.ok_or_else(|| "the subscription ended".into())
}

/// What the next message says, for tests that send text.
pub async fn next_text(subscriber: &mut Subscriber) -> Outcome<String> {
    Ok(String::from_utf8_lossy(&next(subscriber).await?.payload).into_owned())
}

pub async fn receive<V>(channel: &mut mpsc::UnboundedReceiver<V>, what: &str) -> Outcome<V> {
    within(what, channel.recv()).await?.ok_or_else(|| format!("no more events while waiting for: {what}").into())
}

/// A round trip: `Client::flush` only hands the bytes to the socket, and async-nats shows no PONG. The answer that nobody is
/// there comes behind everything the server had for this connection.
pub async fn settle(client: &Client) -> Outcome<Duration> {
    let began = Instant::now();
    match within("a round trip", client.request("nobody.is.here", "".into())).await? {
        Err(error) if error.kind() == RequestErrorKind::NoResponders => Ok(began.elapsed()),
        Err(error) => Err(format!("a round trip: {error}").into()),
        Ok(_) => Err("somebody answered the round trip".into()),
    }
}

/// Relies on order: see `settle`.
pub async fn expect_nothing(client: &Client, subscriber: &mut Subscriber) -> Outcome {
    settle(client).await?;
    expect_no_more(subscriber).await
}

/// For a subscription that has already been settled, or has ended.
pub async fn expect_no_more(subscriber: &mut Subscriber) -> Outcome {
    if let Ok(Some(message)) = tokio::time::timeout(Duration::from_millis(2), subscriber.next()).await {
        return Err(format!("unexpected message on {}: {:?}", message.subject, message.payload).into());
    }
    Ok(())
}

/// One HTTP exchange, closed by the server: neither the control port nor monitoring needs more.
async fn http(method: &str, url: &str, body: &str) -> Outcome<Value> {
    let rest = url.strip_prefix("http://").ok_or("not an http url")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let mut stream = TcpStream::connect(authority).await?;
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: {authority}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, text) = answer.split_once("\r\n\r\n").ok_or("an HTTP answer without end of headers")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    check!(status == "200", "{method} {path}: status {status}: {text}");
    Ok(serde_json::from_str(text)?)
}

#[derive(Clone)]
pub struct Server {
    pub id: String,
    pub host: String,
    pub port: u16,
    pub url: String,
    pub client_ip: String,
    http: String,
}

impl Server {
    fn read(answer: &Value) -> Outcome<Server> {
        let text = |key: &str| answer[key].as_str().map(str::to_owned).ok_or(format!("no {key} in {answer}"));
        Ok(Server {
            id: text("id")?,
            host: text("host")?,
            port: answer["port"].as_u64().ok_or("no port")? as u16,
            url: text("url")?,
            client_ip: text("client_ip")?,
            http: text("http")?,
        })
    }

    pub async fn monitoring(&self, page: &str) -> Outcome<Value> {
        within(page, http("GET", &format!("{}{page}", self.http), "")).await?
    }
}

pub async fn control(call: &str, body: Value) -> Outcome<Value> {
    let url = std::env::var("CLIENTS_CONTROL").map_err(|_| "CLIENTS_CONTROL is not set: start this through run.py")?;
    http("POST", &format!("{url}{call}"), &body.to_string()).await
}

/// One running test.
#[derive(Clone)]
pub struct Test {
    pub name: &'static str,
    pub plain: Server, // shared by all tests that need nothing special
    started: Arc<Mutex<Vec<String>>>,
}

impl Test {
    /// Runs a server of the test's own; config is text in nats-server's grammar.
    pub async fn start(&self, config: &str, args: &[&str]) -> Outcome<Server> {
        let mut request = json!({});
        if !config.is_empty() {
            request["config"] = config.into();
        }
        if !args.is_empty() {
            request["args"] = args.into();
        }
        let server = Server::read(&control("/start", request).await?)?;
        self.started.lock().unwrap().push(server.id.clone());
        Ok(server)
    }

    pub async fn restart(&self, server: &mut Server) -> Outcome {
        let answer = Server::read(&control("/restart", json!({"id": server.id})).await?)?;
        check!(answer.port == server.port, "the server came back on port {} instead of {}", answer.port, server.port);
        *server = answer;
        Ok(())
    }

    pub fn options(&self) -> ConnectOptions {
        // Room for a whole test in each subscription: async-nats drops what does not fit.
        ConnectOptions::new()
            .name(format!("rust-{}", self.name))
            .subscription_capacity(200_000)
            .connection_timeout(PATIENCE)
            .request_timeout(Some(PATIENCE))
    }

    pub async fn connect(&self) -> Outcome<Client> {
        named("connect", self.options().connect(&self.plain.url).await)
    }

    /// The server is shared, so the subject is the test's own.
    pub fn subject(&self, rest: &str) -> String {
        format!("rust.{}.{rest}", self.name)
    }
}

/// Options whose events arrive in a channel.
pub fn watched(options: ConnectOptions) -> (ConnectOptions, mpsc::UnboundedReceiver<Event>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let options = options.event_callback(move |event| {
        let _ = sender.send(event);
        std::future::ready(())
    });
    (options, receiver)
}

pub async fn eventually<F, Fut>(what: &str, mut condition: F) -> Outcome
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Outcome<bool>>,
{
    let deadline = Instant::now() + PATIENCE;
    while !condition().await? {
        check!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

async fn run_one(name: &'static str, body: Body, plain: &Server) -> Result<(), String> {
    let test = Test { name, plain: plain.clone(), started: Arc::default() };
    let started = test.started.clone();
    // A task of its own turns a panic into a result.
    let mut task = tokio::spawn(body(test));
    let result = match tokio::time::timeout(TEST_LIMIT, &mut task).await {
        Ok(Ok(outcome)) => outcome.map_err(|error| error.to_string()),
        Ok(Err(panic)) => Err(panic.to_string()),
        Err(_) => {
            task.abort();
            Err(format!("still running after {TEST_LIMIT:?}"))
        }
    };
    let ids: Vec<String> = started.lock().unwrap().drain(..).collect();
    for id in ids {
        let _ = control("/stop", json!({"id": id, "signal": "KILL"})).await;
    }
    result
}

pub async fn run(tests: Vec<(&'static str, Body)>) -> Outcome<usize> {
    println!("plan {}", tests.len());
    let plain = Server::read(&control("/start", json!({})).await?)?;
    let only = std::env::var("CLIENTS_ONLY").unwrap_or_default();
    let mut failed = 0;
    for (name, body) in tests {
        if !only.is_empty() && !only.split(',').any(|one| one == name) {
            continue;
        }
        let began = Instant::now();
        let result = run_one(name, body, &plain).await;
        println!("# {name} took {} ms", began.elapsed().as_millis());
        match result {
            Ok(()) => println!("ok {name}"),
            Err(reason) => {
                failed += 1;
                println!("FAIL {name}: {}", reason.replace('\n', " | "));
            }
        }
    }
    let _ = control("/stop", json!({"id": plain.id})).await;
    Ok(failed)
}
