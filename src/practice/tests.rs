//! What can be seen of the practice model without asking it. Asked as an engine asks, it is in
//! `tests/support/tests/practice.rs`, with the brain and the login server that tests give it.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_slow_answer_ticks() {
    let steps = vec![ReplyStep::Dawdle(Duration::from_millis(1200)), ReplyStep::Say("done".to_owned())];
    let before = tokio::time::Instant::now();
    let answer = to_bytes(
        completions::completion_response(&json!({ "stream": true }), steps, 1).into_body(),
        REQUEST_MAX,
    )
    .await
    .unwrap();
    assert_eq!(before.elapsed().as_millis(), 1200);
    let answer = String::from_utf8(answer.to_vec()).unwrap();
    let said: String =
        answer.split("\"content\":\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(said, "tick0 tick1 tick2 done");
}

#[tokio::test]
async fn it_listens_on_this_machine_only() {
    let error = start_practice_model(tutor_reply, "0.0.0.0:0".parse().unwrap()).await.unwrap_err();
    assert_eq!(error.to_string(), "The practice model listens on this machine only, not on 0.0.0.0:0");
}
