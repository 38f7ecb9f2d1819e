//! What a hostile program or page on this machine may try: refused, within bounds, and never let through to Kimi.

use super::*;
use crate::gateway::server::{CONNECTIONS_MAX, HEAD_MAX};
use crate::gateway::share::{SHARE, WAITING_MAX};

#[tokio::test]
async fn without_a_good_key_nothing_is_answered() {
    let (practice, gateway) = world().await;
    let key = gateway.key().await;
    let wrong = format!("{}{}", &key[..key.len() - 1], if key.ends_with('0') { '1' } else { '0' });
    let body = chat("k3", "hello", false).to_string();
    for (header, message) in [
        (String::new(), "The gateway wants a key"),
        ("authorization: Bearer sk-other".to_owned(), "The gateway wants a key"),
        (format!("cookie: key={key}"), "The gateway wants a key"),
        (format!("authorization: Bearer {wrong}"), "The gateway does not know this key."),
        (format!("x-api-key: {wrong}"), "The gateway does not know this key."),
    ] {
        let headers: Vec<&str> = if header.is_empty() { vec![] } else { vec![&header] };
        for line in [CHAT, MESSAGES, "POST /v1/nothing"] {
            let refused = gateway.ask(line, &headers, &body).await;
            assert_eq!(refused.status, 401, "{header}: {refused:?}");
            assert!(refused.json()["error"]["message"].as_str().unwrap().starts_with(message), "{refused:?}");
            assert!(!refused.body.contains(&key[..12]), "{refused:?}");
        }
    }
    assert_eq!(practice.received_requests(), []);
}

#[tokio::test]
async fn a_key_that_another_process_removes_is_refused_at_the_next_request() {
    let (practice, gateway) = world().await;
    let key = gateway.key().await;
    assert_eq!(gateway.ask_as(&key, CHAT, &chat("k3", "hello", false)).await.status, 200);
    let other = Store::open(&gateway.folder.path().join("nanokimi.db")).unwrap();
    assert!(other.remove_gateway_key(&KeyName::parse("laptop").unwrap()).await.unwrap());
    let refused = gateway.ask_as(&key, CHAT, &chat("k3", "hello", false)).await;
    assert_eq!((refused.status, practice.received_requests().len()), (401, 1));
}

#[tokio::test]
async fn no_page_in_a_browser_is_answered_even_with_a_key() {
    let (practice, gateway) = world().await;
    let key = format!("authorization: Bearer {}", gateway.key().await);
    let body = chat("k3", "hello", false).to_string();
    for headers in [
        &["origin: https://evil.example"][..],
        &["origin: null", "content-type: text/plain"],
        &["sec-fetch-site: cross-site"],
    ] {
        let refused = gateway.ask(CHAT, &[headers, &[&*key]].concat(), &body).await;
        assert_eq!(
            (refused.status, refused.json()["error"]["message"].as_str()),
            (403, Some("The gateway is not for pages in a browser."))
        );
        assert!(!refused.head.to_ascii_lowercase().contains("access-control"), "{refused:?}");
    }
    // The question that a browser asks before such a request.
    let preflight = [
        "origin: https://evil.example",
        "access-control-request-method: POST",
        "access-control-request-headers: authorization",
    ];
    let refused = gateway.ask("OPTIONS /v1/chat/completions", &preflight, "").await;
    assert_eq!(refused.status, 403);
    assert!(!refused.head.to_ascii_lowercase().contains("access-control"), "{refused:?}");
    // DNS rebinding: the page's own host leads here.
    for host in ["evil.example", "evil.example:8788", "127.0.0.1", "127.0.0.1:1"] {
        for line in ["GET /v1/models", "GET /healthz"] {
            let mut client = gateway.connect().await;
            client.send(&request(line, host, &[&key], "")).await;
            assert_eq!(client.answer().await.status, 403, "{line} at {host}");
        }
    }
    assert_eq!(practice.received_requests(), []);
}

#[tokio::test]
async fn what_is_not_in_the_table_is_not_found_in_the_callers_form() {
    let (practice, gateway) = world().await;
    let key = gateway.key().await;
    for line in [
        "POST /v1/files",
        "GET /v1/usages",
        "POST /v1/embeddings",
        "GET /coding/v1/models",
        "DELETE /v1/models",
        "GET /v1/models/k3",
    ] {
        let refused = gateway.ask(line, &[&format!("authorization: Bearer {key}")], "").await;
        assert_eq!((refused.status, &refused.json()["error"]["code"]), (404, &json!("not_found")), "{line}");
    }
    let refused = gateway.ask_as(&key, "POST /v1/messages/batches", &json!({})).await;
    assert_eq!(
        (refused.status, &refused.json()["error"]["type"], &refused.json()["type"]),
        (404, &json!("not_found_error"), &json!("error"))
    );
    let health = gateway.ask("GET /healthz", &[], "").await;
    assert_eq!((health.status, health.body.as_str()), (200, r#"{"status":"ok"}"#));
    assert_eq!(practice.received_requests(), []);
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused_before_it_is_read() {
    let (_practice, gateway) = world().await;
    let key = gateway.key().await;
    for length in [HEAD_MAX + 1, 10 * 1024 * 1024] {
        let mut client = gateway.connect().await;
        let text = request(
            "GET /v1/models",
            &gateway.host(),
            &[&format!("x-api-key: {key}"), &format!("x-filler: {}", "a".repeat(length))],
            "",
        );
        // The connection may end while it is being written.
        client.0.write_all(text.as_bytes()).await.ok();
        let answer = client.rest().await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
    let mut client = gateway.connect().await;
    let many: Vec<String> = (0..200).map(|n| format!("x-{n}: a")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    client.send(&request("GET /healthz", &gateway.host(), &many, "")).await;
    assert!(client.rest().await.starts_with("HTTP/1.1 431 "));
}

/// Forms by which one server reads another request than the next one does. Here there is no next one: what is read goes
/// to Kimi anew. So each is either refused or harmless, and nothing behind it is taken for a request without a key.
#[tokio::test]
async fn request_smuggling_leads_nowhere() {
    let (practice, gateway) = world().await;
    let key = gateway.key().await;
    let host = gateway.host();
    let hidden = "GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let body = chat("k3", "hello", false).to_string();
    let head =
        format!("POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key}\r\n");
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    for (name, text, statuses) in [
        (
            "two lengths",
            format!("{head}content-length: {}\r\ncontent-length: 5\r\n\r\n{body}{hidden}", body.len()),
            &[400][..],
        ),
        ("a list of lengths", format!("{head}content-length: {0}, {0}\r\n\r\n{body}", body.len()), &[400]),
        ("a negative length", format!("{head}content-length: -1\r\n\r\n{body}"), &[400]),
        ("a length with a plus", format!("{head}content-length: +{}\r\n\r\n{body}", body.len()), &[400]),
        ("a line that goes on", format!("{head}x-a: 1\r\n 2\r\ncontent-length: 2\r\n\r\n{{}}"), &[400]),
        ("space before a colon", format!("{head}content-length : 2\r\n\r\n{{}}"), &[400]),
        (
            "a bad chunk size",
            format!("{head}transfer-encoding: chunked\r\n\r\nzz\r\n{body}\r\n0\r\n\r\n"),
            &[400],
        ),
        (
            "a huge chunk size",
            format!("{head}transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n{body}"),
            &[400],
        ),
        ("another encoding", format!("{head}transfer-encoding: chunked, identity\r\n\r\n{chunked}"), &[400]),
        (
            "an encoding in HTTP/1.0",
            format!("{}transfer-encoding: chunked\r\n\r\n{chunked}", head.replace("HTTP/1.1", "HTTP/1.0")),
            &[400],
        ),
        ("a null in the head", format!("{head}x-a: \0\r\ncontent-length: 2\r\n\r\n{{}}"), &[400]),
        (
            "absolute form",
            format!(
                "GET http://{host}/v1/models HTTP/1.1\r\nhost: {host}\r\nx-api-key: {key}\r\nconnection: close\r\n\r\n"
            ),
            &[403],
        ),
        (
            "another host's absolute form",
            format!(
                "GET http://evil.example/v1/models HTTP/1.1\r\nhost: {host}\r\nx-api-key: {key}\r\nconnection: close\r\n\r\n"
            ),
            &[403],
        ),
        (
            "CONNECT",
            format!(
                "CONNECT evil.example:443 HTTP/1.1\r\nhost: {host}\r\nx-api-key: {key}\r\nconnection: close\r\n\r\n"
            ),
            &[403],
        ),
        (
            "two hosts",
            format!(
                "GET /v1/models HTTP/1.1\r\nhost: {host}\r\nhost: evil.example\r\nx-api-key: {key}\r\nconnection: close\r\n\r\n"
            ),
            &[403],
        ),
        ("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), &[]),
        ("no HTTP", "hello\r\n\r\n".to_owned(), &[400]),
    ] {
        let mut client = gateway.connect().await;
        client.0.write_all(text.as_bytes()).await.unwrap();
        let answer = client.rest().await;
        let said: Vec<u16> = answer
            .split("HTTP/1.")
            .skip(1)
            .filter_map(|answer| answer.split(' ').nth(1)?.parse().ok())
            .collect();
        assert_eq!(said, statuses, "{name}: {answer}");
    }
    assert_eq!(practice.received_requests(), [], "nothing of it reaches Kimi");

    // The same length twice is one length (RFC 9110, 8.6), and Kimi gets it once.
    let mut client = gateway.connect().await;
    let length = format!("content-length: {}\r\n", body.len());
    client.send(&format!("{head}connection: close\r\n{length}{length}\r\n{body}")).await;
    assert_eq!(client.answer().await.status, 200);
    let asked = last_request(&practice);
    assert!(asked.headers["content-length"].parse::<usize>().is_ok(), "{asked:?}");

    // A length and an encoding: the encoding counts (RFC 9112, 6.3), and what follows is another request, without a key.
    for both in [
        format!("content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n{chunked}"),
        format!("transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n{chunked}"),
    ] {
        let mut client = gateway.connect().await;
        client.send(&format!("{head}{both}{hidden}")).await;
        let first = client.until("\r\n\r\n").await;
        assert!(first.starts_with("HTTP/1.1 200 "), "{first}");
        let rest = client.rest().await;
        assert!(!rest.contains("HTTP/1.1 200"), "{rest}");
    }
    let received = practice.received_requests();
    assert!(
        received.iter().all(|request| request.line == "POST /coding/v1/chat/completions"),
        "{received:?}"
    );
    assert_eq!(received.len(), 3);
}

#[tokio::test]
async fn what_is_no_request_is_refused_in_words() {
    let (practice, gateway) = world().await;
    let key = format!("x-api-key: {}", gateway.key().await);
    for (body, message) in [
        ("[]", "The body of the request is no JSON object."),
        (r#"{"model":"k3","model":"k4"}"#, "The body of the request has the same name twice."),
        (r#"{"messages":[]}"#, "The request names no model."),
    ] {
        let refused = gateway.ask(MESSAGES, &[&key], body).await;
        let expected =
            json!({ "type": "error", "error": { "type": "invalid_request_error", "message": message } });
        assert_eq!((refused.status, refused.json()), (400, expected));
    }
    let mut client = gateway.connect().await;
    let host = gateway.host();
    client.send(&format!("{CHAT} HTTP/1.1\r\nhost: {host}\r\n{key}\r\nconnection: close\r\ncontent-length: 99999999999\r\n\r\n{{")).await;
    client.0.shutdown().await.ok();
    let refused = client.rest().await;
    assert!(refused.is_empty() || refused.starts_with("HTTP/1.1 413 "), "{refused}");
    assert_eq!(practice.received_requests(), []);
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_is_given_up() {
    let (practice, gateway) = world().await;
    let key = gateway.key().await;
    let host = gateway.host();
    let head = format!(
        "{CHAT} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key}\r\ncontent-length: 100000\r\n\r\n{{"
    );
    // It says nothing more.
    let mut silent = gateway.connect().await;
    silent.send(&head).await;
    let began = tokio::time::Instant::now();
    // Time is paused, so the patience of the reading itself would be over at once.
    let mut answer = Vec::new();
    silent.0.read_to_end(&mut answer).await.ok();
    let waited = began.elapsed().as_secs();
    assert!((59..=180).contains(&waited), "{waited} s");
    assert_eq!(practice.received_requests(), []);
}

#[tokio::test]
async fn connections_are_bounded_and_further_ones_wait() {
    let (_practice, gateway) = world().await;
    let mut idle = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        idle.push(gateway.connect().await);
    }
    let mut waits = gateway.connect().await;
    waits.send(&request("GET /healthz", &gateway.host(), &[], "")).await;
    let answered = timeout(Duration::from_millis(300), waits.0.readable()).await;
    assert!(answered.is_err(), "it was answered beyond the bound");
    idle.pop();
    assert_eq!(waits.answer().await.status, 200);
}

#[tokio::test]
async fn twenty_requests_are_answered_at_a_time_forty_wait_and_the_next_is_refused() {
    let (practice, gateway) = world().await;
    let key = format!("authorization: Bearer {}", gateway.key().await);
    let asked = request(CHAT, &gateway.host(), &[&key], &chat("k3", "HANG", true).to_string());
    let (begun, mut heads) = tokio::sync::mpsc::unbounded_channel();
    let mut asking = Vec::new();
    for number in 0..=SHARE + WAITING_MAX {
        let (mut client, asked, begun) = (gateway.connect().await, asked.clone(), begun.clone());
        asking.push(tokio::spawn(async move {
            client.send(&asked).await;
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                head.push(client.0.read_u8().await.unwrap().into());
            }
            begun.send((number, head)).ok();
            // It stays until the test lets it go.
            std::future::pending::<()>().await;
        }));
    }
    let mut running = Vec::new();
    let mut refused = Vec::new();
    for _ in 0..=SHARE {
        let (number, head) = timeout(PATIENCE, heads.recv()).await.expect("too few are answered").unwrap();
        if head.starts_with("HTTP/1.1 200 ") { running.push(number) } else { refused.push(head) }
    }
    assert_eq!((running.len(), refused.len()), (SHARE, 1));
    assert!(
        refused[0].starts_with("HTTP/1.1 429 ") && refused[0].contains("retry-after: 10\r\n"),
        "{refused:?}"
    );
    let silence = timeout(Duration::from_millis(300), heads.recv()).await;
    assert!(silence.is_err(), "more than the share is answered: {silence:?}");
    assert_eq!(practice.answer_count(), SHARE as u64);
    // Clients that hang up make room for those that wait.
    for number in &running[..2] {
        asking[*number].abort();
    }
    for _ in 0..2 {
        let (_, head) = timeout(PATIENCE, heads.recv()).await.expect("a place stays taken").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    }
    // So do those that hang up while they wait.
    asking.iter().for_each(JoinHandle::abort);
    let free = async {
        while gateway
            .ask_as(&key["authorization: Bearer ".len()..], CHAT, &chat("k3", "hello", false))
            .await
            .status
            != 200
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, free).await.expect("the places of clients that are gone stay taken");
}
