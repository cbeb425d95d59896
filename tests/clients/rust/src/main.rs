//! async-nats talks to the broker. Names: the contract of tests/clients/README.md, then this suite's own.

mod connections;
mod harness;
mod messaging;
mod secured;

use connections::*;
use messaging::*;
use secured::*;

#[tokio::main]
async fn main() {
    let tests = table![
        publish_subscribe,
        wildcard_star,
        wildcard_full,
        queue_group,
        request_inbox,
        request_mux,
        no_responders,
        headers,
        drain,
        auto_unsubscribe,
        max_payload_exact,
        max_payload_exceeded,
        reconnect,
        slow_consumer,
        auth_user_pass,
        auth_token,
        auth_failure,
        permissions_violation,
        large_payload,
        ordering_100k,
        flush_rtt,
        server_info,
        lame_duck,
        tls,
        tls_verify,
        tls_first,
        // ---
        request_many,
        no_echo,
        reconnect_buffered,
        monitored,
        callbacks,
        keep_alive,
    ];
    match harness::run(tests).await {
        Ok(0) => {}
        Ok(_) => std::process::exit(1),
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(2);
        }
    }
}
