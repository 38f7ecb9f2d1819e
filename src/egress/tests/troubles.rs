//! What the egress proxy does when there is no good answer, what the engine hears of it, and what the session
//! can ask for then.

use super::*;

#[tokio::test]
async fn without_a_login_the_engine_is_told_so_and_the_session_why() {
    let fixture = EgressFixture::new().await;
    fixture.login.send_replace(missing("Nobody is logged in: see /home/owner."));
    let answer = fixture.send_request(ASK).await.rest().await;
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
    let body = r#"{"error":{"message":"Nobody is logged in to Kimi on the server.","type":"invalid_authentication_error","param":null,"code":null}}"#;
    assert!(answer.ends_with(body), "{answer}");
    let failure = fixture.egress.take_failure().unwrap();
    assert_eq!(failure, Failure::new(Trouble::NotLoggedIn, "Nobody is logged in: see /home/owner."));
    assert_eq!(fixture.egress.take_failure(), None, "taken once");

    // An engine reads the answer only after it has sent its request to the end.
    let ask = ask_with(&"x".repeat(4 * 1024 * 1024));
    assert!(fixture.send_request(&ask).await.rest().await.ends_with(body));

    fixture.login.send_replace(Authorization::Login(Secret::new("new")));
    let _engine = fixture.send_request(LOOK).await;
    let (head, _api) = fixture.next_api_request().await;
    assert!(head.contains("authorization: Bearer new\r\n"), "{head}");
}

#[tokio::test]
async fn refusals_of_the_api_are_remembered_until_a_success() {
    let fixture = EgressFixture::new().await;
    let key = Authorization::ApiKey(Secret::new(CANARY));
    fixture.login.send_replace(key);
    for (status, passed_as, body, trouble, detail) in [
        (
            "401 Unauthorized",
            400,
            r#"{"error":{"message":"bad key"}}"#,
            Trouble::NotLoggedIn,
            "HTTP 401 bad key",
        ),
        (
            "403 Forbidden",
            403,
            r#"{"error":{"message":"go","type":"access_terminated_error"}}"#,
            Trouble::Refused,
            "HTTP 403 access_terminated_error: go",
        ),
        (
            "429 Too Many Requests",
            400,
            r#"{"error":{"message":"over quota"}}"#,
            Trouble::QuotaUsedUp,
            "HTTP 429 over quota",
        ),
        ("404 Not Found", 404, r#"{"error":{"message":"no k9"}}"#, Trouble::ModelRefused, "HTTP 404 no k9"),
        ("413 Too Large", 413, "", Trouble::TooLarge, "HTTP 413"),
        ("400 Bad Request", 400, "", Trouble::BadRequest, "HTTP 400"),
    ] {
        let mut engine = fixture.send_request(ASK).await;
        let answer = answered(&fixture, &mut engine, &json_answer(status, body)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {passed_as} ")) && answer.ends_with(body), "{answer}");
        assert_eq!(fixture.egress.take_failure(), Some(Failure::new(trouble, detail)));
    }

    for status in ["400 Oops", "200 OK"] {
        let mut engine = fixture.send_request(ASK).await;
        answered(&fixture, &mut engine, &json_answer(status, "{}")).await;
    }
    assert_eq!(fixture.egress.take_failure(), None, "a later success clears it");
}

#[tokio::test]
async fn what_is_said_of_another_model_is_no_trouble_of_the_account() {
    let fixture = EgressFixture::with(&["kimi-for-coding"], without_web()).await;
    for (status, passed_as, body) in [
        ("402 Payment Required", 400, "{}"),
        ("403 Forbidden", 403, r#"{"error":{"message":"go","type":"access_terminated_error"}}"#),
        ("403 Forbidden", 400, r#"{"error":{"message":"over quota"}}"#),
        ("404 Not Found", 404, "{}"),
        ("429 Too Many Requests", 400, r#"{"error":{"message":"over quota"}}"#),
        ("429 Too Many Requests", 400, r#"{"error":{"type":"rate_limit_reached_error"}}"#),
        ("503 Unavailable", 400, "{}"),
    ] {
        let mut engine = fixture.send_request(&ask_with(r#"{"model":"k9"}"#)).await;
        let answer = answered(&fixture, &mut engine, &json_answer(status, body)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {passed_as} ")), "{status}: {answer}");
        assert_eq!(fixture.egress.take_failure().unwrap().trouble, Trouble::BadRequest, "{status} {body}");
    }
    let error_event = event(r#"{"error":{"type":"exceeded_current_quota_error","message":"no"}}"#);
    for (model, trouble) in [("k9", Trouble::BadRequest), ("kimi-for-coding", Trouble::QuotaUsedUp)] {
        let mut engine = fixture.send_request(&ask_with(&format!(r#"{{"model":"{model}"}}"#))).await;
        answered(&fixture, &mut engine, &format!("{STREAM_HEAD}{error_event}0\r\n\r\n")).await;
        assert_eq!(fixture.egress.take_failure().unwrap().trouble, trouble, "{model}");
    }
}

#[tokio::test]
async fn an_answer_that_ends_whole_stands_whatever_others_met_meanwhile() {
    let fixture = EgressFixture::new().await;
    let mut engine = fixture.send_request(ASK).await;
    let (_, mut api) = fixture.next_api_request().await;
    api.send(STREAM_HEAD).await;
    engine.until("\r\n\r\n").await;
    let mut other = fixture.send_request(ASK).await;
    answered(&fixture, &mut other, &json_answer("400 Bad Request", "{}")).await;
    api.send(&format!("{}0\r\n\r\n", event("[DONE]"))).await;
    engine.rest().await;
    drop(api);
    assert_eq!(fixture.egress.take_failure(), None);

    // But not one that says itself that it is none.
    let mut engine = fixture.send_request(ASK).await;
    let error_event = event(r#"{"error":{"type":"server_error","message":"no"}}"#);
    answered(&fixture, &mut engine, &format!("{STREAM_HEAD}{error_event}0\r\n\r\n")).await;
    assert_eq!(fixture.egress.take_failure(), Some(Failure::new(Trouble::Overloaded, "server_error: no")));
}

#[tokio::test]
async fn an_error_without_a_reason_is_bridged_by_the_door() {
    let fixture = EgressFixture::new().await;
    let mut engine = fixture.send_request(ASK).await;
    let error = json_answer("500 Oops", "{}").replace("\r\n\r\n", "\r\nretry-after-ms: 500\r\n\r\n");
    for _ in 0..3 {
        let (_, mut api) = fixture.next_api_request().await;
        api.until("{}").await;
        api.send(&error).await;
    }
    assert!(engine.rest().await.starts_with("HTTP/1.1 400 "), "after three it is final");
    assert_eq!(fixture.egress.take_failure(), Some(Failure::new(Trouble::Overloaded, "HTTP 500")));
}

#[tokio::test]
async fn a_refusal_beside_the_model_says_nothing_of_the_login() {
    let fixture = EgressFixture::new().await;
    let mut engine = fixture.send_request(LOOK).await;
    let answer = answered(&fixture, &mut engine, &json_answer("401 Unauthorized", "{}")).await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert_eq!(*fixture.refused_login.borrow(), None);
}

#[tokio::test]
async fn a_refused_login_is_renewed_once_and_the_engine_sees_nothing_of_it() {
    let fixture = EgressFixture::new().await;
    let mut engine = fixture.send_request(ASK).await;
    let (_, mut api) = fixture.next_api_request().await;
    assert_eq!(api.until("{}").await, "{}");
    api.send(&json_answer("401 Unauthorized", "{}")).await;
    let mut refused_login = fixture.refused_login.clone();
    let token = refused_login.wait_for(Option::is_some).await.unwrap().clone();
    assert_eq!(token, Some(Secret::new(CANARY)));
    fixture.login.send_replace(Authorization::Login(Secret::new("renewed")));

    let (head, mut api) = fixture.next_api_request().await;
    assert!(head.contains("authorization: Bearer renewed\r\n"), "{head}");
    assert_eq!(api.until("{}").await, "{}", "with the same body");
    api.send(&json_answer("200 OK", "{}")).await;
    assert!(engine.rest().await.starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(fixture.egress.take_failure(), None);

    // The new one is refused, too: nothing is tried a third time.
    let mut engine = fixture.send_request(ASK).await;
    let (_, mut api) = fixture.next_api_request().await;
    api.send(&json_answer("401 Unauthorized", "{}")).await;
    refused_login.wait_for(|token| *token == Some(Secret::new("renewed"))).await.unwrap();
    fixture.login.send_replace(Authorization::Login(Secret::new("newer")));
    let answer = answered(&fixture, &mut engine, &json_answer("401 Unauthorized", "{}")).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(fixture.egress.take_failure(), Some(Failure::new(Trouble::NotLoggedIn, "HTTP 401")));
}

#[tokio::test]
async fn a_login_that_cannot_be_renewed_is_said_so() {
    let fixture = EgressFixture::new().await;
    let mut engine = fixture.send_request(ASK).await;
    let (_, mut api) = fixture.next_api_request().await;
    api.send(&json_answer("401 Unauthorized", "{}")).await;
    fixture.refused_login.clone().wait_for(Option::is_some).await.unwrap();
    fixture.login.send_replace(missing("Run `nanokimi login`."));
    let answer = engine.rest().await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("Nobody is logged in"), "{answer}");
    let failure = Failure::new(Trouble::NotLoggedIn, "Run `nanokimi login`.");
    assert_eq!(fixture.egress.take_failure(), Some(failure));
}

#[tokio::test]
async fn the_door_waits_as_long_as_the_api_wants_and_asks_again() {
    let fixture = EgressFixture::new().await;
    let mut engine = fixture.send_request(ASK).await;
    for status in ["429 Too Many Requests", "503 Unavailable", "529 Overloaded"] {
        let began = std::time::Instant::now();
        let (_, mut api) = fixture.next_api_request().await;
        assert_eq!(api.until("{}").await, "{}");
        let answer = json_answer(status, "{}").replace("\r\n\r\n", "\r\nretry-after-ms: 700\r\n\r\n");
        api.send(&answer).await;
        drop(api);
        assert!(began.elapsed() < PATIENCE);
    }
    let answer = answered(&fixture, &mut engine, &json_answer("200 OK", "{}")).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert_eq!(fixture.egress.take_failure(), None);
}

#[tokio::test]
async fn what_takes_too_long_to_come_back_is_final_for_the_engine() {
    let fixture = EgressFixture::new().await;
    let mut engine = fixture.send_request(ASK).await;
    let error_answer = json_answer("429 Too Many Requests", r#"{"error":{"message":"later"}}"#);
    let error_answer = error_answer.replace("\r\n\r\n", "\r\nretry-after: 3600\r\n\r\n");
    let answer = answered(&fixture, &mut engine, &error_answer).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("later"), "{answer}");
    assert_eq!(fixture.egress.take_failure(), Some(Failure::new(Trouble::RateLimited, "HTTP 429 later")));
}

#[tokio::test]
async fn an_engine_that_hangs_up_while_the_door_waits_is_not_asked_for() {
    let fixture = EgressFixture::new().await;
    let engine = fixture.send_request(ASK).await;
    let (_, mut api) = fixture.next_api_request().await;
    let error_answer = json_answer("429 Too Many Requests", "{}");
    api.send(&error_answer.replace("\r\n\r\n", "\r\nretry-after-ms: 900\r\n\r\n")).await;
    assert_eq!(api.rest().await, "{}");
    drop(engine);
    let failure = Failure::new(Trouble::RateLimited, "HTTP 429");
    assert_eq!(fixture.egress.take_failure(), Some(failure), "why it had no answer is known");
    // The next that the API hears is somebody else's.
    let _other = fixture.send_request(LOOK).await;
    assert!(fixture.next_api_request().await.0.starts_with("GET /coding/v1/models "));
    let nobody = timeout(Duration::from_millis(1_200), fixture.api.accept()).await;
    assert!(nobody.is_err(), "the one that hung up was asked for all the same");
}

#[tokio::test]
async fn somebody_who_answers_in_the_apis_place_is_nobody() {
    let fixture = EgressFixture::new().await;
    let mut engine = fixture.send_request(ASK).await;
    let page = "<h1>Welcome to our hotel</h1>";
    let answer =
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\n\r\n{page}", page.len());
    let heard = answered(&fixture, &mut engine, &answer).await;
    assert!(heard.starts_with("HTTP/1.1 400 ") && !heard.contains("hotel"), "{heard}");
    assert_eq!(fixture.egress.take_failure().unwrap().trouble, Trouble::Unreachable);
}

#[tokio::test]
async fn only_the_models_own_road_tells_how_a_turn_fares() {
    let fixture = EgressFixture::new().await;
    let mut engine =
        fixture.send_request("POST /coding/v1/files HTTP/1.1\r\nhost: x\r\nuser-agent: KimiCLI/1.51.0\r\ncontent-length: 33554433\r\n\r\n").await;
    engine.send(&"x".repeat(33_554_433)).await;
    assert!(engine.until("}}").await.starts_with("HTTP/1.1 413 "));

    for answer in [STREAM_HEAD.to_owned(), json_answer("200 OK", r#"{"error":{"message":"no models"}}"#)] {
        let mut engine = fixture.send_request(LOOK).await;
        answered(&fixture, &mut engine, &answer).await;
    }
    fixture.login.send_replace(missing("Nobody is logged in."));
    fixture.send_request(LOOK).await.rest().await;
    assert_eq!(fixture.egress.take_failure(), None);
}
