//! Connections with TLS: whom the client trusts, what it shows, and who speaks first.

use async_nats::{Client, ConnectOptions, Event};
use futures_util::StreamExt;

use crate::check;
use crate::connections::{returning, wait_for};
use crate::harness::*;

fn file(variable: &str) -> Outcome<std::path::PathBuf> {
    named(variable, std::env::var(variable)).map(Into::into)
}

fn trusting(options: ConnectOptions) -> Outcome<ConnectOptions> {
    Ok(options.add_root_certificates(file("CLIENTS_CA")?).require_tls(true))
}

fn showing(options: ConnectOptions) -> Outcome<ConnectOptions> {
    Ok(options.add_client_certificate(file("CLIENTS_CERT")?, file("CLIENTS_KEY")?))
}

async fn secure(t: &Test, more: &str) -> Outcome<Server> {
    t.start(&format!("tls {{ @tls{more} }}"), &[]).await
}

fn url(server: &Server) -> String {
    server.url.replace("nats://", "tls://")
}

async fn talk(client: &Client, other: &Client, round: &str) -> Outcome {
    let mut sub = other.subscribe(format!("secure.{round}")).await?;
    let mut questions = other.subscribe(format!("echo.{round}")).await?;
    let answering = other.clone();
    tokio::spawn(async move {
        while let Some(message) = questions.next().await {
            if let Some(reply) = message.reply {
                let _ = answering.publish(reply, message.payload).await;
            }
        }
    });
    settle(other).await?;
    let sizes = [0, 5, 16 * 1024, client.server_info().max_payload];
    for (n, size) in sizes.into_iter().enumerate() {
        client.publish(format!("secure.{round}"), vec![n as u8 + 1; size].into()).await?;
    }
    for (n, size) in sizes.into_iter().enumerate() {
        let message = next(&mut sub).await?;
        check!(message.payload == vec![n as u8 + 1; size], "payload {n} is another");
    }
    let answer = named("request", client.request(format!("echo.{round}"), "there?".into()).await)?;
    check!(answer.payload == "there?", "answer {:?}", answer.payload);
    Ok(())
}

async fn talk_over_tls(t: &Test, mut server: Server, options: impl Fn() -> Outcome<ConnectOptions>) -> Outcome {
    let (own, mut events) = returning(options()?);
    let client = named("connect", own.connect(url(&server)).await)?;
    let (own, mut others_events) = returning(options()?);
    let other = named("connect", own.connect(url(&server)).await)?;
    wait_for(&mut events, Event::Connected).await?;
    wait_for(&mut others_events, Event::Connected).await?;
    talk(&client, &other, "before").await?;
    let page = server.monitoring("/connz").await?;
    let rows = page["connections"].as_array().ok_or("no connections")?;
    check!(rows.len() == 2 && rows.iter().all(|row| row["tls_version"] == "1.3"), "{page}");
    t.restart(&mut server).await?;
    for events in [&mut events, &mut others_events] {
        wait_for(events, Event::Disconnected).await?;
        wait_for(events, Event::Connected).await?;
    }
    talk(&client, &other, "after").await
}

async fn refused(server: &Server, options: ConnectOptions) -> Outcome {
    check!(options.connect(url(server)).await.is_err(), "connected");
    Ok(())
}

pub async fn tls(t: Test) -> Outcome {
    let server = secure(&t, "").await?;
    talk_over_tls(&t, server.clone(), || trusting(t.options())).await?;
    refused(&server, t.options().require_tls(true)).await
}

pub async fn tls_verify(t: Test) -> Outcome {
    let server = secure(&t, ", verify: true").await?;
    talk_over_tls(&t, server.clone(), || showing(trusting(t.options())?)).await?;
    refused(&server, trusting(t.options())?).await
}

pub async fn tls_first(t: Test) -> Outcome {
    let server = secure(&t, ", handshake_first: true").await?;
    talk_over_tls(&t, server, || Ok(trusting(t.options())?.tls_first())).await
}
