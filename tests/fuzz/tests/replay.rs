//! The targets once more with what is kept of them: seeds, findings of before, and inputs that could take long.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nanokimi_fuzz::{answer, asked, engine, meter, prompt, proxy, response_events, responses};

/// What no answer may take, here without optimization.
const PROCESSOR_BOUND: Duration = Duration::from_secs(5);

/// Gives a target each input of its corpus, among which are the findings of before.
fn replay(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let inputs = fs::read_dir(&folder).expect("a corpus").map(|entry| entry.expect("an entry").path());
    let mut count = 0;
    for path in inputs {
        target(&fs::read(&path).expect("an input"));
        count += 1;
    }
    assert!(count > 0, "{} is empty", folder.display());
}

/// How long this thread has been on a processor, which does not count what else the machine does.
fn on_processor() -> Duration {
    let told = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells it");
    let nanoseconds = told.split(' ').next().and_then(|word| word.parse().ok()).expect("a number");
    Duration::from_nanos(nanoseconds)
}

#[test]
fn nothing_that_an_agent_can_write_takes_long() {
    let most = 64 * 1024;
    let repeated = |piece: &str| piece.repeat(most / piece.len());
    let lazy = |markers: &str| markers.repeat(most / 2 / markers.len()) + "a\n" + &"b\n".repeat(most / 4);
    let mut hard: Vec<String> = [
        ">",
        "> ",
        ">\n",
        "- ",
        "-\n",
        "1. ",
        "* ",
        "[",
        "](",
        "[a](",
        "![",
        "[]()",
        "*",
        "**a ",
        "*a_ ",
        "_a* ",
        "**a**b",
        "~~",
        "`",
        "` ",
        "``a` ",
        "<",
        "<a ",
        "<!--",
        "<![CDATA[",
        "<https://a",
        "https://",
        "a@b.c",
        "@",
        "|",
        "|a",
        "|-",
        "|a\n|-\n",
        "\\",
        "&amp;",
        "&#x",
        "# ",
        "#\n",
        "```\n",
        "~~~\n",
        "***a***",
        "：**a",
        "\r",
        "\u{2028}",
        "\0",
        "\u{200b}",
        "**\u{200b}",
        "a://*b ",
    ]
    .map(repeated)
    .into();
    hard.extend([lazy(">"), lazy("- "), lazy("> - "), lazy("1) "), format!("{}*a* ", ">".repeat(30_000))]);
    hard.push((1..360).map(|length| "`".repeat(length) + " ").collect());
    hard.push((0..360).map(|depth| " ".repeat(depth) + "- a\n").collect());
    hard.push("*".repeat(most / 2) + "a" + &"*".repeat(most / 2));
    hard.push("**a ".repeat(most / 8) + &" b**".repeat(most / 8));
    hard.push("|a".repeat(8_000) + "\n" + &"|-".repeat(8_000) + "\n" + &"b\n".repeat(16_000));
    for source in hard {
        let before = on_processor();
        answer(source.as_bytes());
        let took = on_processor() - before;
        let start: String = source.chars().take(12).collect();
        assert!(took < PROCESSOR_BOUND, "{start:?} took {took:?}");
    }
}

#[test]
fn answers() {
    replay("answer", answer);
}

#[test]
fn prompts() {
    replay("prompt", prompt);
}

#[test]
fn engines() {
    replay("engine", engine);
}

#[test]
fn meters() {
    replay("meter", meter);
}

#[test]
fn requests() {
    replay("asked", asked);
}

#[test]
fn proxies() {
    replay("proxy", proxy);
}

#[test]
fn requests_of_the_responses_api() {
    replay("responses", responses);
}

#[test]
fn events_of_the_responses_api() {
    replay("response_events", response_events);
}
