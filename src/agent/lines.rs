//! Carries the lines of a protocol over a running engine's pipes, with bounded memory. What they mean is
//! decided by a [`Protocol`], which never does I/O.
//!
//! One task owns both pipes and does four things side by side, so that no one of them can hold up another: it
//! reads lines, writes lines, hands over events, and takes requests. While the session takes its time with an
//! event, the engine still gets its answers. While the engine takes its time to read, its events still reach
//! the session.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::messages::{AgentEvent, EngineLoss, Request};

/// Longest line that is held. The lines that matter have some kilobytes, unless the engine says a whole
/// answer at once. Only the results of tools are longer, and nobody here needs those. (The engine itself
/// accepts 100 MB.)
///
/// A line costs, for a moment, six times its length if it is one long text (it grows, is unescaped, is parsed
/// and becomes an event), and 600 bytes for each of its [`MARKS_MAX`]. That is 12 MB at most.
const LINE_MAX: usize = 1024 * 1024;

/// Most brackets, commas and colons of a line that is parsed; a line with more counts as too long. The lines
/// that matter have dozens, and a list of a hundred sessions has a thousand. Without this bound a line of
/// empty objects costs 150 times its length.
const MARKS_MAX: usize = 10_000;

/// Most bytes of one [`AgentEvent::AnswerText`]; a longer text goes in several. Together with
/// `EVENTS_IN_FLIGHT` (`handle`) this bounds what an engine can make the host hold.
const SAID_MAX_BYTES: usize = 8 * 1024;

/// How much of a longer line is looked at: enough to tell what it is.
const BEGINNING_BYTES: usize = 1024;

/// How much is read from an engine in a second, skipped lines included: many times what the fastest answer
/// needs. Nothing else bounds what its lines cost the host, least of all the limits of its container.
const LINES_PER_SECOND: usize = 5_000;
const BYTES_PER_SECOND: usize = 4 * LINE_MAX;

/// Read from the pipe at a time.
const READ_BYTES: usize = 64 * 1024;

/// Lines that wait for the engine to read them, in bytes. Beyond this nothing more is taken or answered until
/// it reads. This is many times the largest prompt: only an engine that keeps asking without reading gets
/// here.
const UNREAD_MAX: usize = 32 * 1024 * 1024;

/// An engine's protocol, as a pure machine: a line in, what it means to the session out.
///
/// ```text
///   Request ──▶ encode_request ──▶ a line for the engine
///   a line of the engine ──▶ handle_line ──▶ an event for the session │ a line in answer │ the end
/// ```
pub trait Protocol {
    /// Puts a request into the protocol's words.
    fn encode_request(&mut self, asked: Request) -> Outgoing;

    /// Understands one line, without its end.
    fn handle_line(&mut self, line: &[u8]) -> Incoming;

    /// Understands the beginning of a line that is too long to be held, or too intricate to be parsed.
    fn handle_long_line_start(&mut self, beginning: &[u8]) -> Incoming;

    /// What the end of stdout means. `rest` is a last line that did not end.
    fn handle_stdout_end(self, rest: &[u8]) -> EngineLoss;
}

/// How a request is put to the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outgoing {
    Line(String),
    /// The protocol has no words for it.
    Nothing,
    /// By closing stdin.
    Close,
}

/// What a line of the engine leads to.
#[derive(Clone, Debug, PartialEq)]
pub enum Incoming {
    Nothing,
    Event(AgentEvent),
    /// One after the other.
    Events(AgentEvent, AgentEvent),
    /// A line to write to the engine.
    Answer(String),
    /// Nothing more can be understood.
    Lost(EngineLoss),
}

/// Speaks with the engine, beginning with this line, until it is gone. The last event is always
/// [`AgentEvent::Gone`].
pub async fn run_protocol<C, W, R>(
    (mut protocol, greeting): (C, String),
    stdin: W,
    stdout: R,
    mut requests: mpsc::Receiver<Request>,
    events: mpsc::Sender<AgentEvent>,
) where
    C: Protocol,
    W: AsyncWrite + Send + Unpin + 'static,
    R: AsyncRead + Send + Unpin + 'static,
{
    let mut lines = EngineLineReader::new(stdout);
    let mut writer = LineWriter::new(stdin);
    writer.push_line(&greeting);
    // Events that the session has not yet taken. Nothing more is read until it has.
    let mut waiting: VecDeque<AgentEvent> = VecDeque::new();
    let mut more_requests = true;

    let gone = loop {
        tokio::select! {
            line = lines.read_next_line(), if waiting.is_empty() && writer.has_room() => {
                let incoming = match line {
                    EngineLine::Whole(line) => protocol.handle_line(&line),
                    EngineLine::TooLong(beginning) => protocol.handle_long_line_start(&beginning),
                    EngineLine::End { rest } => break protocol.handle_stdout_end(&rest),
                };
                match incoming {
                    Incoming::Nothing => {}
                    Incoming::Event(event) => waiting.push_back(event),
                    Incoming::Events(first, second) => waiting.extend([first, second]),
                    Incoming::Answer(line) => writer.push_line(&line),
                    Incoming::Lost(gone) => break gone,
                }
            }
            () = writer.write_or_close_stdin(), if writer.has_work() => {}
            permit = events.reserve(), if !waiting.is_empty() => match (permit, waiting.pop_front()) {
                (Ok(permit), Some(AgentEvent::AnswerText(mut text))) if text.len() > SAID_MAX_BYTES => {
                    let rest = text.split_off(text.floor_char_boundary(SAID_MAX_BYTES));
                    waiting.push_front(AgentEvent::AnswerText(rest));
                    permit.send(AgentEvent::AnswerText(text));
                }
                (Ok(permit), Some(event)) => permit.send(event),
                // Nobody listens any more: the engine is to end.
                (Err(_), _) | (_, None) => writer.close_when_empty(),
            },
            request = requests.recv(), if more_requests && writer.has_room() => {
                more_requests = request.is_some();
                match request.map_or(Outgoing::Close, |request| protocol.encode_request(request)) {
                    Outgoing::Line(line) => writer.push_line(&line),
                    Outgoing::Nothing => {}
                    Outgoing::Close => writer.close_when_empty(),
                }
            }
        }
    };
    // A session that is just asking something must not wait for us while we wait for it.
    drop(requests);
    drop(writer);
    events.send(AgentEvent::Gone(gone)).await.ok();
}

/// The engine's stdout, line by line, with bounded memory.
struct EngineLineReader<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
    /// The rest of a line that was too long.
    skipping: bool,
    pace: ReadRateLimit,
}

/// How much was read in the running second.
struct ReadRateLimit {
    since: Instant,
    lines: usize,
    bytes: usize,
}

impl ReadRateLimit {
    fn record_read(&mut self, bytes: usize, lines: usize) {
        let now = Instant::now();
        if now.duration_since(self.since) >= Duration::from_secs(1) {
            *self = Self { since: now, lines: 0, bytes: 0 };
        }
        self.lines += lines;
        self.bytes += bytes;
    }

    /// Waits for the next second if this one has had enough.
    async fn wait_for_rate_limit(&self) {
        if self.lines >= LINES_PER_SECOND || self.bytes >= BYTES_PER_SECOND {
            sleep_until(self.since + Duration::from_secs(1)).await;
        }
    }
}

#[derive(Debug)]
enum EngineLine {
    /// Without its end.
    Whole(Vec<u8>),
    /// The beginning of a line that is longer than [`LINE_MAX`] or has more than [`MARKS_MAX`]; its rest is
    /// skipped.
    TooLong(Vec<u8>),
    /// stdout has ended, perhaps in the middle of a line.
    End { rest: Vec<u8> },
}

impl<R: AsyncRead + Unpin> EngineLineReader<R> {
    fn new(stdout: R) -> Self {
        let pace = ReadRateLimit { since: Instant::now(), lines: 0, bytes: 0 };
        Self { reader: BufReader::with_capacity(READ_BYTES, stdout), line: Vec::new(), skipping: false, pace }
    }

    /// Cancel-safe: what has been read stays here.
    async fn read_next_line(&mut self) -> EngineLine {
        loop {
            self.pace.wait_for_rate_limit().await;
            let buffer = match self.reader.fill_buf().await {
                Ok(buffer) if !buffer.is_empty() => buffer,
                Ok(_) => return EngineLine::End { rest: std::mem::take(&mut self.line) },
                Err(error) => {
                    debug!(%error, "Failed to read from the engine");
                    return EngineLine::End { rest: std::mem::take(&mut self.line) };
                }
            };
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let piece = &buffer[..end.unwrap_or(buffer.len())];
            let too_long = !self.skipping && self.line.len() + piece.len() > LINE_MAX;
            if !self.skipping {
                self.line.extend_from_slice(piece);
            }
            let read = piece.len() + usize::from(end.is_some());
            self.reader.consume(read);
            self.pace.record_read(read, usize::from(end.is_some()));
            let whole = end.is_some() && !self.skipping;
            self.skipping = end.is_none() && (self.skipping || too_long);
            if too_long || (whole && count_json_marks(&self.line) > MARKS_MAX) {
                let mut beginning = std::mem::take(&mut self.line);
                beginning.truncate(BEGINNING_BYTES);
                beginning.shrink_to_fit();
                return EngineLine::TooLong(beginning);
            }
            if whole {
                return EngineLine::Whole(std::mem::take(&mut self.line));
            }
        }
    }
}

/// How many brackets, commas and colons a line of JSON has outside of its texts. It has at most one value
/// more than that, since each value but the first follows a mark of its own.
fn count_json_marks(line: &[u8]) -> usize {
    let mut marks = 0;
    let mut rest = line.iter();
    while let Some(byte) = rest.next() {
        match byte {
            b'"' => {
                while let Some(byte) = rest.next() {
                    match byte {
                        b'"' => break,
                        b'\\' => drop(rest.next()),
                        _ => {}
                    }
                }
            }
            b'[' | b'{' | b',' | b':' => marks += 1,
            _ => {}
        }
    }
    marks
}

/// Lines on their way into the engine's stdin.
struct LineWriter<W> {
    /// `None` once it is closed.
    stdin: Option<W>,
    lines: BytesMut,
    flushed: bool,
    closing: bool,
}

impl<W: AsyncWrite + Unpin> LineWriter<W> {
    fn new(stdin: W) -> Self {
        Self { stdin: Some(stdin), lines: BytesMut::new(), flushed: true, closing: false }
    }

    /// Adds a line. After [`LineWriter::close_when_empty`] a line is dropped.
    fn push_line(&mut self, line: &str) {
        if self.stdin.is_some() && !self.closing {
            self.lines.extend_from_slice(line.as_bytes());
            self.lines.extend_from_slice(b"\n");
        }
    }

    /// Closes stdin after the lines that are already here.
    fn close_when_empty(&mut self) {
        self.closing = true;
    }

    fn has_room(&self) -> bool {
        self.lines.len() < UNREAD_MAX
    }

    fn has_work(&self) -> bool {
        self.stdin.is_some() && (!self.lines.is_empty() || !self.flushed || self.closing)
    }

    /// Does one step of the work. Cancel-safe: each step counts whole or not at all.
    async fn write_or_close_stdin(&mut self) {
        if let Err(error) = self.try_write_step().await {
            // Its stdout will show how it ended.
            debug!(%error, "The engine does not read any more");
            self.stdin = None;
            self.lines.clear();
        }
    }

    async fn try_write_step(&mut self) -> io::Result<()> {
        let Some(stdin) = &mut self.stdin else {
            return Ok(());
        };
        if !self.lines.is_empty() {
            if stdin.write_buf(&mut self.lines).await? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.flushed = false;
        } else if !self.flushed {
            stdin.flush().await?;
            self.flushed = true;
        } else {
            stdin.shutdown().await?;
            self.stdin = None;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use serde_json::Value;
    use tokio::io::{AsyncReadExt, DuplexStream, Lines as TokioLines};
    use tokio::time::timeout;

    use super::super::{Agent, Engine as Program, EngineInput, TurnEnd};
    use super::*;
    use crate::types::Role;

    /// The engine's side of the pipes.
    struct TestEnginePipes {
        stdin: TokioLines<BufReader<DuplexStream>>,
        stdout: DuplexStream,
    }

    /// Starts an agent on pipes that hold this many bytes, as a kernel's pipe holds some.
    fn start(pipe_bytes: usize) -> (Agent, mpsc::Receiver<AgentEvent>, TestEnginePipes) {
        start_as(Program::KimiCli, pipe_bytes)
    }

    fn start_as(program: Program, pipe_bytes: usize) -> (Agent, mpsc::Receiver<AgentEvent>, TestEnginePipes) {
        let (stdin, engine_stdin) = tokio::io::duplex(pipe_bytes);
        let (stdout, engine_stdout) = tokio::io::duplex(pipe_bytes);
        let (agent, events) = Agent::start_protocol(program, Role::Member, stdin, engine_stdout);
        (agent, events, TestEnginePipes { stdin: BufReader::new(engine_stdin).lines(), stdout })
    }

    impl TestEnginePipes {
        async fn hears(&mut self) -> Value {
            serde_json::from_str(&self.stdin.next_line().await.unwrap().expect("stdin is open")).unwrap()
        }

        async fn says(&mut self, line: &str) {
            self.stdout.write_all(line.as_bytes()).await.unwrap();
            self.stdout.write_all(b"\n").await.unwrap();
        }

        async fn greets(&mut self) {
            assert_eq!(self.hears().await["method"], "initialize");
            self.says(r#"{"jsonrpc":"2.0","id":"initialize","result":{"protocol_version":"1.10"}}"#).await;
        }
    }

    const STEP: &str =
        r#"{"jsonrpc":"2.0","method":"event","params":{"type":"StepBegin","payload":{"n":1}}}"#;
    const TEXT: &str = r#"{"jsonrpc":"2.0","method":"event","params":{"type":"ContentPart","payload":{"type":"text","text":"hi"}}}"#;
    const APPROVAL: &str = r#"{"jsonrpc":"2.0","method":"request","id":"a","params":{"type":"ApprovalRequest","payload":{"id":"r"}}}"#;

    #[tokio::test(start_paused = true)]
    async fn a_conversation_from_greeting_to_goodbye() {
        let (agent, mut events, mut engine) = start(256);
        engine.greets().await;
        assert_eq!(events.recv().await, Some(AgentEvent::Ready));

        agent.queue_request(Request::Prompt(EngineInput::from_text("x".repeat(10_000))));
        let prompt = engine.hears().await;
        assert_eq!(prompt["params"]["user_input"].as_str().map(str::len), Some(10_000));
        for line in [STEP, TEXT, r#"{"id":"prompt-1","result":{"status":"finished"}}"#] {
            engine.says(line).await;
        }
        assert_eq!(events.recv().await, Some(AgentEvent::StepBegan));
        assert_eq!(events.recv().await, Some(AgentEvent::AnswerText("hi".to_owned())));
        assert_eq!(events.recv().await, Some(AgentEvent::TurnOver(TurnEnd::Finished)));

        agent.queue_request(Request::Steer(EngineInput::from_text("too late")));
        agent.queue_request(Request::Close);
        agent.queue_request(Request::Prompt(EngineInput::from_text("after the goodbye")));
        assert_eq!(engine.hears().await["method"], "steer");
        assert_eq!(engine.stdin.next_line().await.unwrap(), None, "stdin is closed");
        engine.says(TEXT).await;
        drop(engine);
        assert_eq!(
            events.recv().await,
            Some(AgentEvent::AnswerText("hi".to_owned())),
            "the last words are heard"
        );
        assert_eq!(events.recv().await, Some(AgentEvent::Gone(EngineLoss::Ended)));
        assert_eq!(events.recv().await, None);
        agent.queue_request(Request::Cancel);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_lets_go_of_its_handle_closes_the_engine() {
        let (agent, mut events, mut engine) = start(256);
        engine.greets().await;
        drop(agent);
        assert_eq!(engine.stdin.next_line().await.unwrap(), None);
        drop(engine);
        assert_eq!(events.recv().await, Some(AgentEvent::Ready));
        assert_eq!(events.recv().await, Some(AgentEvent::Gone(EngineLoss::Ended)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_stops_listening_closes_the_engine() {
        let (_agent, events, mut engine) = start(256);
        drop(events);
        engine.greets().await;
        assert_eq!(engine.stdin.next_line().await.unwrap(), None);
        engine.says(TEXT).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_stops_reading_is_still_heard() {
        let (agent, mut events, mut engine) = start(256);
        engine.greets().await;
        let TestEnginePipes { stdin, mut stdout } = engine;
        drop(stdin);
        agent.queue_request(Request::Prompt(EngineInput::from_text("into nothing")));
        stdout.write_all(TEXT.as_bytes()).await.unwrap();
        stdout.write_all(b"\n").await.unwrap();
        drop(stdout);
        assert_eq!(events.recv().await, Some(AgentEvent::Ready));
        assert_eq!(events.recv().await, Some(AgentEvent::AnswerText("hi".to_owned())));
        assert_eq!(events.recv().await, Some(AgentEvent::Gone(EngineLoss::Ended)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_stub_that_exits_is_quoted() {
        let (_agent, mut events, mut engine) = start(64);
        engine.says("kimi-cli is no longer maintained.").await;
        assert_eq!(
            events.recv().await,
            Some(AgentEvent::Gone(EngineLoss::NeverReady {
                said: "kimi-cli is no longer maintained.".to_owned()
            }))
        );
        assert_eq!(events.recv().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn garbage_ends_it_and_the_engine_sees_its_stdin_close() {
        let (_agent, mut events, mut engine) = start(256);
        engine.greets().await;
        engine.says("Segmentation fault").await;
        engine.says(TEXT).await;
        assert_eq!(events.recv().await, Some(AgentEvent::Ready));
        assert_eq!(
            events.recv().await,
            Some(AgentEvent::Gone(EngineLoss::Garbage { said: "Segmentation fault".to_owned() }))
        );
        assert_eq!(engine.stdin.next_line().await.unwrap(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_takes_no_events_can_still_ask() {
        let (agent, mut events, mut engine) = start(256);
        engine.greets().await;
        let TestEnginePipes { mut stdin, mut stdout } = engine;
        tokio::spawn(async move { while stdout.write_all(format!("{TEXT}\n").as_bytes()).await.is_ok() {} });
        for _ in 0..1_000 {
            agent.queue_request(Request::Cancel);
            assert!(stdin.next_line().await.unwrap().is_some_and(|line| line.contains("cancel")));
        }
        assert_eq!(events.recv().await, Some(AgentEvent::Ready));
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_floods_is_heard_at_its_pace() {
        let (_agent, mut events, mut engine) = start(64 * 1024);
        engine.greets().await;
        assert_eq!(events.recv().await, Some(AgentEvent::Ready));
        let TestEnginePipes { stdin: _stdin, mut stdout } = engine;
        let long = format!("{{\"method\":\"event\",\"x\":\"{}\"}}\n", "x".repeat(LINE_MAX / 2));
        tokio::spawn(async move {
            for _ in 0..25_000 {
                stdout.write_all(format!("{TEXT}\n").as_bytes()).await.unwrap();
            }
            for _ in 0..40 {
                stdout.write_all(long.as_bytes()).await.unwrap();
            }
        });
        let began = Instant::now();
        let heard = async {
            while events.recv().await.is_some_and(|event| event != AgentEvent::Gone(EngineLoss::Ended)) {}
        };
        heard.await;
        // Five seconds of lines, and five of bytes.
        assert!((8..=11).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_skipped_of_a_line_is_read_no_faster_than_what_is_not() {
        let (_agent, mut events, mut engine) = start(64 * 1024);
        engine.greets().await;
        assert_eq!(events.recv().await, Some(AgentEvent::Ready));
        let TestEnginePipes { stdin: _stdin, mut stdout } = engine;
        let began = Instant::now();
        let feed = tokio::spawn(async move {
            let mut line =
                br#"{"jsonrpc":"2.0","method":"event","params":{"type":"ToolResult","payload":""#.to_vec();
            line.resize(40 * LINE_MAX, b'x');
            line.push(b'\n');
            stdout.write_all(&line).await.unwrap();
            stdout.write_all(format!("{TEXT}\n").as_bytes()).await.unwrap();
        });
        assert_eq!(events.recv().await, Some(AgentEvent::AnswerText("hi".to_owned())));
        feed.await.unwrap();
        let seconds = 40 * LINE_MAX / BYTES_PER_SECOND;
        let took = usize::try_from(began.elapsed().as_secs()).unwrap();
        assert!((seconds - 1..=seconds).contains(&took), "{took} s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_whole_answer_in_one_line_is_heard() {
        for (program, chunk) in [
            (
                Program::KimiCli,
                r#"{"jsonrpc":"2.0","method":"event","params":{"type":"ContentPart","payload":{"type":"text","text":TEXT}}}"#,
            ),
            (
                Program::KimiCode,
                r#"{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":"s","update":{"sessionUpdate":"agent_message_chunk","content":{"type":"text","text":TEXT}}}}"#,
            ),
        ] {
            let (_agent, mut events, mut engine) = start_as(program, 1024 * 1024);
            let greetings: &[&str] = match program {
                Program::KimiCli => &[r#"{"id":"initialize","result":{}}"#],
                Program::KimiCode => &[
                    r#"{"id":"initialize","result":{"protocolVersion":1}}"#,
                    r#"{"id":"new","result":{"sessionId":"s"}}"#,
                ],
            };
            for greeting in greetings {
                engine.hears().await;
                engine.says(greeting).await;
            }
            // Code and tables are full of marks, but within a text they do not count.
            let text = "[{\"a\": [1, 2]}, \\\\]\n".repeat(10_000);
            engine.says(&chunk.replace("TEXT", &serde_json::to_string(&text).unwrap())).await;
            drop(engine);
            let mut heard = String::new();
            while let Some(event) = events.recv().await {
                if let AgentEvent::AnswerText(piece) = event {
                    heard += &piece;
                }
            }
            assert!(heard == text && text.len() >= 200_000, "{program:?}: {} bytes", heard.len());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_of_many_values_is_known_by_its_beginning_and_never_parsed() {
        let event = |values: &str| {
            format!(
                r#"{{"jsonrpc":"2.0","method":"event","params":{{"type":"SteerInput","payload":[{values}]}}}}"#
            )
        };
        for value in ["[],", r#"{"":0},"#, "0,", "[[[[[]]]]],"] {
            let values = value.repeat(LINE_MAX / value.len() - 100);
            let line = event(&values[..values.len() - 1]);
            assert!(line.len() <= LINE_MAX && count_json_marks(line.as_bytes()) > MARKS_MAX);
            let mut lines = EngineLineReader::new(line.as_bytes());
            let EngineLine::End { rest } = lines.read_next_line().await else { panic!("it has not ended") };
            assert_eq!(rest.len(), line.len());

            let line = format!("{line}\n");
            let mut lines = EngineLineReader::new(line.as_bytes());
            let EngineLine::TooLong(beginning) = lines.read_next_line().await else {
                panic!("{value} is parsed")
            };
            assert_eq!(beginning, &line.as_bytes()[..BEGINNING_BYTES]);
            assert!(beginning.capacity() < 2 * BEGINNING_BYTES, "what is held is no more");
        }
        // A receipt is a receipt, whatever is in it.
        let (_agent, mut events, mut engine) = start(1024 * 1024);
        engine.greets().await;
        assert_eq!(events.recv().await, Some(AgentEvent::Ready));
        engine.says(&event(&vec!["[]"; MARKS_MAX].join(","))).await;
        engine.says(TEXT).await;
        assert_eq!(events.recv().await, Some(AgentEvent::SteerTaken));
        assert_eq!(events.recv().await, Some(AgentEvent::AnswerText("hi".to_owned())));
    }

    /// What a parsed line takes beside the bytes of its texts.
    fn memory_of(value: &Value) -> usize {
        // What is there doubles as it grows, and is copied as it does.
        let grown = |length: usize| match length {
            0 => 0,
            1..=4 => 4,
            _ => length.next_power_of_two() / 2 * 3,
        };
        match value {
            Value::Array(values) => {
                grown(values.len()) * size_of::<Value>() + values.iter().map(memory_of).sum::<usize>()
            }
            Value::Object(map) => {
                // Of each name its hash, its text, its value, and its place in an index.
                let each = 8 + size_of::<String>() + size_of::<Value>() + 9;
                grown(map.len()) * each + map.values().map(memory_of).sum::<usize>()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
        }
    }

    #[test]
    fn a_line_that_is_parsed_costs_no_more_than_its_marks() {
        let worst = [
            vec!["0"; MARKS_MAX].join(","),
            vec!["[]"; MARKS_MAX / 2].join(","),
            vec![r#"{"":0}"#; MARKS_MAX / 3].join(","),
            vec![r#"{"":{"":{"":{"":0}}}}"#; MARKS_MAX / 9].join(","),
            vec!["[[[[[[0]]]]]]"; MARKS_MAX / 7].join(","),
            r#"{"":"#.repeat(100) + "0" + &"}".repeat(100),
        ];
        for line in worst {
            let line = format!("[{line}]");
            let marks = count_json_marks(line.as_bytes());
            assert!(marks <= MARKS_MAX, "it is parsed");
            let memory = memory_of(&serde_json::from_str(&line).unwrap());
            // As much again for what a message is read into.
            assert!(memory <= 300 * marks, "{:.30}: {} bytes a mark", line, memory / marks);
        }
    }

    proptest! {
        #[test]
        fn a_line_has_no_more_values_than_marks(value in any_json()) {
            fn values(value: &Value) -> usize {
                1 + match value {
                    Value::Array(inner) => inner.iter().map(values).sum::<usize>(),
                    Value::Object(inner) => inner.values().map(values).sum(),
                    Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
                }
            }
            let line = value.to_string();
            prop_assert!(values(&value) <= count_json_marks(line.as_bytes()) + 1, "{}", line);
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[\\[\\]{},:\"\\\\a]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 60, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec(("[\\[{,:\"\\\\a]{0,4}", inner), 0..6)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_writes_before_it_reads_is_heard_out() {
        let (agent, mut events, mut engine) = start(256);
        engine.greets().await;
        assert_eq!(events.recv().await, Some(AgentEvent::Ready));
        // More than the pipe holds waits to be read by the engine, which first wants to be heard and asked.
        agent.queue_request(Request::Prompt(EngineInput::from_text("x".repeat(100_000))));
        let engine = tokio::spawn(async move {
            for _ in 0..1_000 {
                engine.says(APPROVAL).await;
            }
            assert_eq!(engine.hears().await["method"], "prompt");
            for _ in 0..1_000 {
                assert_eq!(engine.hears().await["result"]["response"], "approve");
            }
        });
        timeout(Duration::from_secs(60), engine).await.expect("no deadlock").unwrap();
        assert_eq!(events.recv().await, Some(AgentEvent::Gone(EngineLoss::Ended)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_read_no_faster_than_it_is_taken() {
        const FLOOD: usize = 100_000;
        let (_agent, mut events, mut engine) = start(4096);
        engine.greets().await;
        let (written, mut progress) = tokio::sync::watch::channel(0);
        tokio::spawn(async move {
            for n in 0..FLOOD {
                engine.says(TEXT).await;
                written.send(n).ok();
            }
        });
        // It comes to rest long before its end …
        while timeout(Duration::from_secs(1), progress.changed()).await.is_ok() {}
        let at_rest = *progress.borrow();
        assert!(at_rest < 2_000, "{at_rest} events were taken in while nobody wanted them");
        // … and all of it arrives.
        let mut heard = 0;
        while let Some(event) = events.recv().await {
            heard += usize::from(matches!(event, AgentEvent::AnswerText(_)));
        }
        assert_eq!(heard, FLOOD);
    }

    #[tokio::test(start_paused = true)]
    async fn much_that_is_said_at_once_arrives_in_pieces() {
        let (_agent, mut events, mut engine) = start(1024 * 1024);
        engine.greets().await;
        let text = "é€😀".repeat(10_000);
        engine.says(&TEXT.replace("hi", &text)).await;
        drop(engine);
        let (mut heard, mut longest) = (String::new(), 0);
        while let Some(event) = events.recv().await {
            if let AgentEvent::AnswerText(piece) = event {
                longest = longest.max(piece.len());
                heard += &piece;
            }
        }
        assert!(heard == text && longest <= SAID_MAX_BYTES, "{longest} bytes at once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_that_is_too_long_is_skipped_or_ends_it_but_never_held() {
        let (_agent, mut events, mut engine) = start(1024 * 1024);
        engine.greets().await;
        let pad = "x".repeat(3 * LINE_MAX);
        let feed = tokio::spawn(async move {
            engine.says(&format!(r#"{{"jsonrpc":"2.0","method":"event","params":{{"type":"ToolResult","payload":"{pad}"}}}}"#)).await;
            engine.says(TEXT).await;
            let long = format!(r#"{{"jsonrpc":"2.0","method":"request","id":"{pad}"#);
            engine.stdout.write_all(long.as_bytes()).await.ok();
            engine
        });
        assert_eq!(events.recv().await, Some(AgentEvent::Ready));
        assert_eq!(events.recv().await, Some(AgentEvent::AnswerText("hi".to_owned())));
        let Some(AgentEvent::Gone(EngineLoss::Garbage { said })) = events.recv().await else {
            panic!("a request that cannot be read is the end");
        };
        assert!(said.starts_with(r#"{"jsonrpc":"2.0","method":"request""#) && said.len() <= 300);
        feed.await.unwrap();
    }

    #[tokio::test]
    async fn lines_are_cut_where_they_end_however_they_arrive() {
        let long = vec![b'x'; LINE_MAX];
        let longer = vec![b'y'; LINE_MAX + 1];
        let input = [&b"one\r\n\ntwo\n"[..], &long, b"\n", &longer, b"\nthree\nrest"].concat();
        for chunk in [1, 7, READ_BYTES] {
            let mut lines = EngineLineReader::new(Pieces { rest: &input, piece: chunk });
            let mut seen = Vec::new();
            loop {
                match lines.read_next_line().await {
                    EngineLine::Whole(line) => seen.push(("whole", line.len(), line.first().copied())),
                    EngineLine::TooLong(line) => seen.push(("too long", line.len(), line.first().copied())),
                    EngineLine::End { rest } => {
                        assert_eq!(rest, b"rest");
                        break;
                    }
                }
            }
            assert_eq!(
                seen,
                [
                    ("whole", 4, Some(b'o')),
                    ("whole", 0, None),
                    ("whole", 3, Some(b't')),
                    ("whole", LINE_MAX, Some(b'x')),
                    ("too long", BEGINNING_BYTES, Some(b'y')),
                    ("whole", 5, Some(b't')),
                ],
                "in pieces of {chunk}"
            );
        }
    }

    /// Hands out its bytes a few at a time.
    struct Pieces<'a> {
        rest: &'a [u8],
        piece: usize,
    }

    impl AsyncRead for Pieces<'_> {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            buffer: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<io::Result<()>> {
            let length = self.piece.min(self.rest.len()).min(buffer.remaining());
            let (piece, rest) = self.rest.split_at(length);
            buffer.put_slice(piece);
            self.rest = rest;
            std::task::Poll::Ready(Ok(()))
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn whatever_an_engine_writes_there_is_one_end(
            program in prop_oneof![Just(Program::KimiCli), Just(Program::KimiCode)],
            pieces in prop::collection::vec(
                prop_oneof![
                    Just(b"{\"id\":\"initialize\",\"result\":{}}\n".to_vec()),
                    Just(b"{\"id\":\"new\",\"result\":{\"sessionId\":\"s\"}}\n".to_vec()),
                    Just(b"{\"id\":1,\"method\":\"session/request_permission\",\"params\":{}}\n".to_vec()),
                    Just(format!("{TEXT}\n").into_bytes()),
                    Just(format!("{APPROVAL}\n").into_bytes()),
                    Just(b"\n".to_vec()),
                    prop::collection::vec(any::<u8>(), 0..40),
                ],
                0..30,
            ),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            let events = runtime.block_on(async {
                let (_agent, mut events, engine) = start_as(program, 48);
                let TestEnginePipes { stdin, mut stdout } = engine;
                tokio::spawn(async move {
                    for piece in &pieces {
                        if stdout.write_all(piece).await.is_err() {
                            return;
                        }
                    }
                });
                tokio::spawn(async move {
                    let mut stdin = stdin.into_inner();
                    stdin.read_to_end(&mut Vec::new()).await.ok();
                });
                let mut all = Vec::new();
                while let Some(event) = timeout(Duration::from_secs(60), events.recv()).await.expect("an end") {
                    all.push(event);
                }
                all
            });
            let ends = events.iter().filter(|event| matches!(event, AgentEvent::Gone(_))).count();
            prop_assert_eq!(ends, 1);
            prop_assert!(matches!(events.last(), Some(AgentEvent::Gone(_))));
        }
    }
}
