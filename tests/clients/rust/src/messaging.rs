//! Messages between connected clients: what the subject matches, who of a group gets it, in which order, how large it may be.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use async_nats::{Client, HeaderMap, PublishErrorKind, Request, RequestErrorKind};
use futures_util::StreamExt;
use tokio::sync::mpsc;

use crate::check;
use crate::harness::*;

pub async fn publish_subscribe(t: Test) -> Outcome {
    let (receiver, sender) = (t.connect().await?, t.connect().await?);
    let subject = t.subject("greeting");
    let mut sub = receiver.subscribe(subject.clone()).await?;
    settle(&receiver).await?;
    for payload in ["Hello", "", "\0\r\nü", "PUB other 3\r\nabc\r\n"] {
        sender.publish(subject.clone(), payload.into()).await?;
        let message = next(&mut sub).await?;
        check!(message.subject.as_str() == subject, "subject {} instead of {subject}", message.subject);
        check!(message.payload == payload.as_bytes(), "payload {:?} instead of {payload:?}", message.payload);
        check!(message.reply.is_none() && message.headers.is_none(), "reply or headers where none was given");
    }
    settle(&sender).await?;
    expect_nothing(&receiver, &mut sub).await?;

    // Two subscriptions of one connection to one subject are two receivers.
    let mut twin = receiver.subscribe(subject.clone()).await?;
    settle(&receiver).await?;
    sender.publish(subject.clone(), "both".into()).await?;
    check!(next_text(&mut sub).await? == "both", "the first of two equal subscriptions missed it");
    check!(next_text(&mut twin).await? == "both", "the second of two equal subscriptions missed it");
    sub.unsubscribe().await?;
    settle(&receiver).await?;
    sender.publish(subject, "one left".into()).await?;
    check!(next_text(&mut twin).await? == "one left", "the remaining subscription missed it");
    settle(&sender).await?;
    expect_nothing(&receiver, &mut twin).await
}

/// Publishes on every subject and checks on which of them the pattern's subscription got it, in order.
async fn matches(t: &Test, pattern: &str, hits: &[&str], misses: &[&str]) -> Outcome {
    let (receiver, sender) = (t.connect().await?, t.connect().await?);
    let mut sub = receiver.subscribe(t.subject(pattern)).await?;
    settle(&receiver).await?;
    for rest in misses.iter().chain(hits).chain(misses) {
        sender.publish(t.subject(rest), rest.to_string().into()).await?;
    }
    settle(&sender).await?;
    settle(&receiver).await?;
    for rest in hits {
        let message = next(&mut sub).await?;
        check!(message.subject.as_str() == t.subject(rest), "{pattern} got {} instead of {rest}", message.subject);
        check!(message.payload == rest.as_bytes(), "{pattern} got the payload of {:?}", message.payload);
    }
    expect_nothing(&receiver, &mut sub).await
}

pub async fn wildcard_star(t: Test) -> Outcome {
    matches(&t, "a.*", &["a.x", "a.y", "a.$"], &["a", "a.x.y", "b.x", "ax.y"]).await?;
    matches(&t, "a.*.end", &["a.x.end", "a.y.end"], &["a.end", "a.x.y.end", "a.x.ends"]).await?;
    matches(&t, "*.*", &["a.x", "b.y"], &["a", "b.y.z"]).await
}

pub async fn wildcard_full(t: Test) -> Outcome {
    matches(&t, "a.>", &["a.x", "a.x.y", "a.x.y.z.1.2.3"], &["a", "b.x"]).await?;
    matches(&t, "*.>", &["a.x", "b.x.y"], &["a", "b"]).await
}

pub async fn queue_group(t: Test) -> Outcome {
    const MEMBERS: usize = 4;
    const MESSAGES: usize = 1000;
    let subject = t.subject("work");
    let (served, mut serves) = mpsc::unbounded_channel();
    for member in 0..MEMBERS {
        let client = t.connect().await?;
        let mut sub = client.queue_subscribe(subject.clone(), "workers".into()).await?;
        settle(&client).await?;
        let served = served.clone();
        tokio::spawn(async move {
            while let Some(message) = sub.next().await {
                let _ = served.send((member, String::from_utf8_lossy(&message.payload).into_owned()));
            }
            drop(client);
        });
    }
    let watcher = t.connect().await?;
    let mut all = watcher.subscribe(subject.clone()).await?;
    let mut other = watcher.queue_subscribe(t.subject("*"), "auditors".into()).await?;
    settle(&watcher).await?;

    let sender = t.connect().await?;
    for i in 0..MESSAGES {
        sender.publish(subject.clone(), i.to_string().into()).await?;
    }
    for i in 0..MESSAGES {
        check!(next_text(&mut all).await? == i.to_string(), "the plain subscriber missed {i}");
        check!(next_text(&mut other).await? == i.to_string(), "the other group missed {i}");
    }
    let mut by_member = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for i in 0..MESSAGES {
        let (member, payload) = receive(&mut serves, &format!("message {i} of the group")).await?;
        check!(seen.insert(payload.clone()), "message {payload} went to two members");
        *by_member.entry(member).or_insert(0) += 1;
    }
    check!(by_member.len() == MEMBERS, "some members got nothing: {by_member:?}");
    settle(&sender).await?;
    expect_nothing(&watcher, &mut all).await?;
    check!(serves.try_recv().is_err(), "the group handled a message too many");
    Ok(())
}

async fn echo(t: &Test, subject: &str) -> Outcome {
    let client = t.connect().await?;
    let mut sub = client.queue_subscribe(subject.to_string(), "echo".into()).await?;
    settle(&client).await?;
    tokio::spawn(async move {
        while let Some(message) = sub.next().await {
            if let Some(reply) = message.reply {
                let _ = match message.headers {
                    Some(headers) => client.publish_with_headers(reply, headers, message.payload).await,
                    None => client.publish(reply, message.payload).await,
                };
            }
        }
    });
    Ok(())
}

async fn requests(t: &Test, callers: usize, each: usize, own_inbox: bool) -> Outcome {
    let subject = t.subject("echo");
    echo(t, &subject).await?;
    echo(t, &subject).await?;
    let client = t.connect().await?;
    let mut running = Vec::new();
    for caller in 0..callers {
        let (client, subject): (Client, String) = (client.clone(), subject.clone());
        running.push(tokio::spawn(async move {
            for i in 0..each {
                let question = format!("{caller}/{i}");
                let mut request = Request::new().payload(question.clone().into());
                if own_inbox {
                    request = request.inbox(client.new_inbox());
                }
                let answer =
                    named(&format!("request {question}"), client.send_request(subject.clone(), request).await)?;
                check!(answer.payload == question, "request {question} was answered {:?}", answer.payload);
            }
            Outcome::Ok(())
        }));
    }
    for task in running {
        task.await??;
    }
    Ok(())
}

pub async fn request_inbox(t: Test) -> Outcome {
    requests(&t, 20, 10, true).await
}

pub async fn request_mux(t: Test) -> Outcome {
    requests(&t, 100, 20, false).await
}

pub async fn no_responders(t: Test) -> Outcome {
    let client = t.connect().await?;
    for own_inbox in [false, true] {
        let request = |timeout| {
            let request = Request::new().timeout(Some(timeout));
            if own_inbox {
                request.inbox(client.new_inbox())
            } else {
                request
            }
        };
        let began = Instant::now();
        let error =
            client.send_request(t.subject("nobody"), request(2 * PATIENCE)).await.err().ok_or("nobody answered")?;
        check!(error.kind() == RequestErrorKind::NoResponders, "{error} instead of no responders");
        check!(began.elapsed() < PATIENCE, "the answer took {:?}", began.elapsed());

        // A responder that has left counts as none; one that stays silent is a timeout, not a 503.
        let mut silent = client.subscribe(t.subject("silent")).await?;
        let short = request(Duration::from_millis(100));
        let error = client.send_request(t.subject("silent"), short).await.err().ok_or("the silent one answered")?;
        check!(error.kind() == RequestErrorKind::TimedOut, "{error} instead of a timeout");
        silent.unsubscribe().await?;
        let error =
            client.send_request(t.subject("silent"), request(2 * PATIENCE)).await.err().ok_or("nobody answered")?;
        check!(error.kind() == RequestErrorKind::NoResponders, "{error} after the responder left");
    }
    Ok(())
}

pub async fn headers(t: Test) -> Outcome {
    let (receiver, sender) = (t.connect().await?, t.connect().await?);
    check!(sender.server_info().headers, "the server does not offer headers");
    let subject = t.subject("note");
    let mut sub = receiver.subscribe(subject.clone()).await?;
    settle(&receiver).await?;
    let mut sent = HeaderMap::new();
    sent.insert("Color", "green");
    sent.append("Trace", "one");
    sent.append("Trace", "two, three");
    sent.insert("lower-case", "ünïcode: kept");
    for payload in ["with payload", ""] {
        sender.publish_with_reply_and_headers(subject.clone(), "answers.here", sent.clone(), payload.into()).await?;
        let message = next(&mut sub).await?;
        check!(message.payload == payload, "payload {:?} instead of {payload:?}", message.payload);
        check!(message.reply.as_deref() == Some("answers.here"), "reply {:?}", message.reply);
        check!(message.headers.as_ref() == Some(&sent), "headers {:?} instead of {sent:?}", message.headers);
    }
    sender.publish(subject, "bare".into()).await?;
    let message = next(&mut sub).await?;
    check!(message.headers.is_none(), "a message without headers came with {:?}", message.headers);

    echo(&t, &t.subject("echo")).await?;
    let answer = sender.request_with_headers(t.subject("echo"), sent.clone(), "q".into()).await?;
    check!(answer.headers.as_ref() == Some(&sent), "the answer's headers {:?}", answer.headers);
    Ok(())
}

pub async fn auto_unsubscribe(t: Test) -> Outcome {
    let (receiver, sender) = (t.connect().await?, t.connect().await?);
    let subject = t.subject("few");
    let subscriptions = || async {
        let page = t.plain.monitoring("/connz?limit=1024").await?;
        let named = |c: &&serde_json::Value| c["name"] == format!("rust-{}", t.name);
        let of = |c: &serde_json::Value| c["subscriptions"].as_u64().unwrap_or(0);
        Outcome::Ok(
            page["connections"].as_array().ok_or("no connections in /connz")?.iter().filter(named).map(of).sum::<u64>(),
        )
    };
    // The round trips' own inboxes stay, one a connection.
    settle(&receiver).await?;
    settle(&sender).await?;
    let mut before = receiver.subscribe(subject.clone()).await?;
    before.unsubscribe_after(10).await?;
    let mut after = receiver.subscribe(subject.clone()).await?;
    settle(&receiver).await?;
    for i in 0..3 {
        sender.publish(subject.clone(), i.to_string().into()).await?;
        next(&mut after).await?;
    }
    after.unsubscribe_after(5).await?; // the three delivered ones count
    settle(&receiver).await?;
    let held = subscriptions().await?;
    check!(held == 4, "the server counts {held} subscriptions instead of 4");
    for i in 3..5 {
        sender.publish(subject.clone(), i.to_string().into()).await?;
    }
    // The client stops at max by itself, so the server is asked as well.
    let five = "the server dropped the one that has had its five";
    eventually(five, || async { Ok(subscriptions().await? == 3) }).await?;
    for i in 5..20 {
        sender.publish(subject.clone(), i.to_string().into()).await?;
    }
    settle(&sender).await?;
    settle(&receiver).await?;
    for i in 0..10 {
        check!(next_text(&mut before).await? == i.to_string(), "message {i} is missing");
    }
    for i in 3..5 {
        check!(next_text(&mut after).await? == i.to_string(), "message {i} is missing");
    }
    check!(within("the end", before.next()).await?.is_none(), "max given at once: a message too many");
    check!(within("the end", after.next()).await?.is_none(), "max given later: a message too many");
    eventually("the server dropped both subscriptions", || async { Ok(subscriptions().await? == 2) }).await?;

    // A member that has had its share leaves the group to the others.
    let mut limited = receiver.queue_subscribe(t.subject("queue"), "q".into()).await?;
    limited.unsubscribe_after(2).await?;
    let mut rest = sender.queue_subscribe(t.subject("queue"), "q".into()).await?;
    settle(&receiver).await?;
    settle(&sender).await?;
    for i in 0..200 {
        sender.publish(t.subject("queue"), i.to_string().into()).await?;
    }
    for _ in 0..198 {
        next(&mut rest).await?;
    }
    next(&mut limited).await?;
    next(&mut limited).await?;
    expect_nothing(&sender, &mut rest).await
}

/// Bytes that differ from place to place and from size to size (xorshift).
fn bytes(size: usize) -> Vec<u8> {
    let mut state = size as u64 | 1 << 40;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
    .take(size)
    .collect()
}

pub async fn max_payload_exact(t: Test) -> Outcome {
    let (receiver, sender) = (t.connect().await?, t.connect().await?);
    let mut sub = receiver.subscribe(t.subject("full")).await?;
    settle(&receiver).await?;
    let max = sender.max_payload();
    check!(max == 1 << 20, "max_payload is {max} instead of the default 1 MiB");
    let payload = bytes(max);
    sender.publish(t.subject("full"), payload.clone().into()).await?;
    check!(next(&mut sub).await?.payload == payload, "the payload changed on its way");

    let small = t.start("max_payload: 1000", &[]).await?;
    let client = t.options().connect(&small.url).await?;
    check!(client.max_payload() == 1000, "max_payload is {} instead of 1000", client.max_payload());
    let mut sub = client.subscribe("echoed").await?;
    client.publish("echoed", payload[..1000].to_vec().into()).await?;
    check!(next(&mut sub).await?.payload == payload[..1000], "the payload changed on its way");
    Ok(())
}

pub async fn max_payload_exceeded(t: Test) -> Outcome {
    let client = t.connect().await?;
    let error =
        client.publish(t.subject("over"), vec![0; (1 << 20) + 1].into()).await.err().ok_or("max_payload + 1 passed")?;
    check!(error.kind() == PublishErrorKind::MaxPayloadExceeded, "{error}");
    settle(&client).await?; // the client refused it, so the connection is untouched
    Ok(())
}

pub async fn large_payload(t: Test) -> Outcome {
    echo(&t, &t.subject("echo")).await?;
    let client = t.connect().await?;
    for size in [1 << 20, (1 << 20) - 1, 65536, 65535, 4096, 511, 1, 0, 1 << 20, 1 << 20, 1 << 20] {
        let payload = bytes(size);
        let answer = named("request", client.request(t.subject("echo"), payload.clone().into()).await)?;
        check!(answer.payload == payload, "{size} bytes came back changed");
    }
    Ok(())
}

pub async fn ordering_100k(t: Test) -> Outcome {
    const MESSAGES: usize = 100_000;
    let (receiver, sender) = (t.connect().await?, t.connect().await?);
    let subjects = [t.subject("count.a"), t.subject("count.b")];
    let mut sub = receiver.subscribe(t.subject("count.*")).await?;
    settle(&receiver).await?;
    let publishing = {
        let (sender, subjects) = (sender.clone(), subjects.clone());
        tokio::spawn(async move {
            for i in 0..MESSAGES {
                sender.publish(subjects[i % 2].clone(), i.to_string().into()).await?;
            }
            Outcome::Ok(())
        })
    };
    for i in 0..MESSAGES {
        let message = next(&mut sub).await?;
        check!(
            message.payload == i.to_string() && message.subject.as_str() == subjects[i % 2],
            "message {:?} on {} instead of {i}",
            message.payload,
            message.subject
        );
    }
    publishing.await??;
    settle(&sender).await?;
    expect_nothing(&receiver, &mut sub).await
}

pub async fn flush_rtt(t: Test) -> Outcome {
    let (a, b) = (t.connect().await?, t.connect().await?);
    let mut own = a.subscribe(t.subject("x")).await?;
    let mut foreign = b.subscribe(t.subject("x")).await?;
    settle(&a).await?;
    settle(&b).await?;
    // After A's round trip the server has routed its messages; the answer to B's comes behind them.
    for round in 0..100 {
        for _ in 0..10 {
            a.publish(t.subject("x"), "flush".into()).await?;
        }
        a.flush().await?;
        let rtt = settle(&a).await?;
        check!(rtt > Duration::ZERO && rtt < Duration::from_secs(5), "round trip of {rtt:?}");
        settle(&b).await?;
        for _ in 0..10 {
            let arrived = |sub| tokio::time::timeout(Duration::from_millis(2), next(sub));
            check!(arrived(&mut own).await.is_ok(), "round {round}: an own message came after the round trip");
            check!(arrived(&mut foreign).await.is_ok(), "round {round}: a message came after both round trips");
        }
    }
    Ok(())
}

/// Several answers to one request: the asker's inbox is a subject like any other.
pub async fn request_many(t: Test) -> Outcome {
    const RESPONDERS: usize = 5;
    for i in 0..RESPONDERS {
        let client = t.connect().await?;
        let mut sub = client.subscribe(t.subject("who")).await?;
        settle(&client).await?;
        tokio::spawn(async move {
            while let Some(message) = sub.next().await {
                if let Some(reply) = message.reply {
                    let _ = client.publish(reply, i.to_string().into()).await;
                }
            }
        });
    }
    let client = t.connect().await?;
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await?;
    client.publish_with_reply(t.subject("who"), inbox, "".into()).await?;
    let mut seen = BTreeSet::new();
    for _ in 0..RESPONDERS {
        seen.insert(next_text(&mut answers).await?);
    }
    check!(seen.len() == RESPONDERS, "answers of {seen:?} only");
    expect_nothing(&client, &mut answers).await
}

pub async fn no_echo(t: Test) -> Outcome {
    let quiet = t.options().no_echo().connect(&t.plain.url).await?;
    let other = t.connect().await?;
    let mut own = quiet.subscribe(t.subject("x")).await?;
    let mut foreign = other.subscribe(t.subject("x")).await?;
    settle(&quiet).await?;
    settle(&other).await?;
    quiet.publish(t.subject("x"), "from quiet".into()).await?;
    check!(next_text(&mut foreign).await? == "from quiet", "the other connection missed it");
    expect_nothing(&quiet, &mut own).await?;
    other.publish(t.subject("x"), "from other".into()).await?;
    check!(next_text(&mut own).await? == "from other", "the quiet connection missed another's message");
    Ok(())
}
