//! The Agent Client Protocol, version 1, as a pure machine: the engine is the agent, nanokimi its client.
//!
//! ```text
//!   initialize ─▶ session/list ─▶ session/resume, the newest of the work folder ─▶ its model ─▶ ready
//!                       └────────▶ session/new, if there is none ────────────────────────────────┘
//! ```
//!
//! A session that is resumed is told the model that it has. For the agent-runner has taken the engine's
//! profile out of its history, and so the engine makes the system prompt anew, with the instructions and
//! skills of today.
//!
//! The engine chooses the ids of its sessions, and what it keeps on disk is the truth: the host remembers no
//! id. The engine's requests are always answered: an unanswered one holds its turn for ever.
//!
//! A message can be steered into a turn by a method that the image adds to the engine (`lighten.mjs`). Each
//! steer gets one answer, which says whether it was taken. These answers come in the order of asking and
//! before the turn's own. Steers are welcome from the turn's first sign on. An engine without the method
//! refuses each of them, and what comes during a turn waits for the next one.
//!
//! The messages are those of the crate `agent-client-protocol`; its connection is not used, because its
//! queues have no bounds and a container is at the other end (`lines` carries the messages instead). The
//! rules below were measured with kimi-code 2.1.0. Never does I/O. Message text is logged at DEBUG at most.

use agent_client_protocol::schema::ProtocolVersion;
use agent_client_protocol::v1::schema::{
    AGENT_METHOD_NAMES, CLIENT_METHOD_NAMES, CancelNotification, ContentBlock, ImageContent, Implementation,
    InitializeRequest, InitializeResponse, ListSessionsRequest, ListSessionsResponse, McpServer,
    McpServerHttp, NewSessionRequest, NewSessionResponse, PermissionOptionKind, PromptRequest,
    PromptResponse, RequestPermissionOutcome, RequestPermissionRequest, RequestPermissionResponse,
    ResumeSessionRequest, ResumeSessionResponse, SelectedPermissionOutcome, SessionConfigKind, SessionId,
    SessionNotification, SessionUpdate, SetSessionConfigOptionRequest, StopReason,
};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tracing::{debug, trace};

use super::excerpt::{append_excerpt, take_excerpt};
use super::jsonrpc::{
    RpcError, RpcMessage, encode_method_not_found, encode_rpc_notification, encode_rpc_request,
    encode_rpc_result, parse_rpc_line,
};
use super::lines::{Incoming, Outgoing, Protocol};
use super::messages::{AgentEvent, CompactionEnd, EngineInput, EngineLoss, Request, TurnEnd};
use crate::types::{Failure, Trouble};

/// How every update begins: kimi-code writes the fields in this order. A line that is too long to be read may
/// be missed if it begins so: it holds what a tool has read, say.
const UPDATE_BEGINNING: &[u8] = br#"{"jsonrpc":"2.0","method":"session/update","#;

const COMPACTED: &str = "Compaction completed.\n";
const COMPACTION_CANCELLED: &str = "Compaction cancelled.";
/// How kimi-code begins what it says about itself in the middle of an answer, each in a piece of its own.
const REMARKS: [&str; 4] = [
    "Compacting conversation context",
    COMPACTED,
    COMPACTION_CANCELLED,
    "Compaction is blocked by the current turn;",
];

const INITIALIZE: &str = "initialize";
const LIST: &str = "list";
const RESUME: &str = "resume";
const MODEL: &str = "model";
const NEW: &str = "new";

/// The host's tools, as the engine reaches them: the port of the container that leads to the egress proxy
/// (`home.rs` of the agent-runner). The model knows each as `mcp__host__<name>`.
const TOOL_SERVER_NAME: &str = "host";
const TOOL_SERVER_URL: &str = "http://127.0.0.1:8787/mcp";

/// The engine's own command. Its prompt is answered at once; a remark tells the end of the summary.
const COMPACT: &str = "/compact";
/// What the engine says if it does not begin with the summary, and if there is nothing to put into one.
const COMPACT_REFUSED: &str = "/compact failed:";
const NOTHING_TO_COMPACT: &str = "No messages to compact";

/// The method that the image adds.
const STEER: &str = "_session/steer";

/// The state of the conversation with a running engine.
#[derive(Debug)]
pub struct AcpProtocol {
    /// Where the engine works.
    folder: &'static str,
    stage: AcpStage,
    sight: ImageSupport,
    /// Where the engine finds the host's tools; none if it cannot call any.
    tool_servers: Vec<McpServer>,
    /// Ids of the prompts that have no answer yet: one, or more if the session asks too early and the engine
    /// refuses.
    prompts: Vec<String>,
    /// Ids of the steers that have no answer yet.
    steers: Vec<String>,
    compaction: Option<AcpCompaction>,
    asked: u64,
    turn: AcpTurnState,
    words: TurnTextState,
}

/// A compaction that was asked for.
#[derive(Debug)]
struct AcpCompaction {
    id: String,
    is_answered: bool,
    end: Option<CompactionEnd>,
}

/// Whether the running turn has given a sign of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AcpTurnState {
    Asked,
    Begun,
}

#[derive(Debug)]
enum AcpStage {
    /// There is no session yet, but perhaps one that was asked for.
    Opening {
        resumed: Option<SessionId>,
    },
    Ready(SessionId),
}

/// Whether the engine takes pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ImageSupport {
    Supported,
    Unsupported,
}

/// Whether the running turn has said something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TurnTextState {
    None,
    Some,
    /// And a tool was used since: what follows is a new paragraph.
    BeforeATool,
}

impl AcpProtocol {
    /// Begins with this line, for an engine that works in `folder`.
    ///
    /// No files and no terminal of ours are offered: the engine uses those of its container.
    pub fn start_handshake(folder: &'static str) -> (Self, String) {
        let who = Implementation::new("nanokimi", env!("CARGO_PKG_VERSION"));
        let greeting = InitializeRequest::new(ProtocolVersion::V1).client_info(who);
        let greeting = encode_rpc_request(INITIALIZE, AGENT_METHOD_NAMES.initialize, greeting);
        let acp = Self {
            folder,
            stage: AcpStage::Opening { resumed: None },
            sight: ImageSupport::Unsupported,
            tool_servers: Vec::new(),
            prompts: Vec::new(),
            steers: Vec::new(),
            compaction: None,
            asked: 0,
            turn: AcpTurnState::Asked,
            words: TurnTextState::None,
        };
        (acp, greeting)
    }

    fn handle_rpc_response(&mut self, id: &str, outcome: Result<Value, RpcError>) -> Incoming {
        match (&self.stage, id) {
            (AcpStage::Opening { .. }, INITIALIZE) => match outcome {
                Ok(result) => self.handle_initialize_result(result),
                Err(error) => handshake_failure(&error),
            },
            (AcpStage::Opening { .. }, LIST) => {
                let sessions = outcome.ok().and_then(parse_json_value::<ListSessionsResponse>);
                // Times in ISO 8601, which sort as they are.
                let newest = sessions.and_then(|found| {
                    found.sessions.into_iter().max_by(|one, other| one.updated_at.cmp(&other.updated_at))
                });
                match newest {
                    Some(session) => {
                        let resume = ResumeSessionRequest::new(session.session_id.clone(), self.folder)
                            .mcp_servers(self.tool_servers.clone());
                        self.stage = AcpStage::Opening { resumed: Some(session.session_id) };
                        Incoming::Answer(encode_rpc_request(
                            RESUME,
                            AGENT_METHOD_NAMES.session_resume,
                            resume,
                        ))
                    }
                    None => self.request_new_session(),
                }
            }
            (AcpStage::Opening { resumed: Some(session) }, RESUME) => match outcome {
                Ok(result) => {
                    let session = session.clone();
                    match model_request(&session, result) {
                        Some(request) => Incoming::Answer(request),
                        None => self.mark_session_ready(session),
                    }
                }
                Err(error) => {
                    error.log_as("The engine cannot go on with its history and begins a new one");
                    self.request_new_session()
                }
            },
            (AcpStage::Opening { resumed: Some(session) }, MODEL) => {
                if let Err(error) = outcome {
                    error.log_as("The engine goes on with the instructions of an earlier start");
                }
                let session = session.clone();
                self.mark_session_ready(session)
            }
            (AcpStage::Opening { .. }, NEW) => match outcome.map(parse_json_value::<NewSessionResponse>) {
                Ok(Some(new)) => self.mark_session_ready(new.session_id),
                Ok(None) => Incoming::Lost(EngineLoss::NeverReady { said: "no session".to_owned() }),
                Err(error) => handshake_failure(&error),
            },
            (AcpStage::Opening { .. } | AcpStage::Ready(_), id) => {
                match self.handle_steer_response(id, &outcome) {
                    Some(incoming) => incoming,
                    None => self.handle_prompt_response(id, outcome),
                }
            }
        }
    }

    fn handle_initialize_result(&mut self, result: Value) -> Incoming {
        let Some(agent) = parse_json_value::<InitializeResponse>(result) else {
            return self.request_new_session();
        };
        let can = agent.agent_capabilities;
        if can.prompt_capabilities.image {
            self.sight = ImageSupport::Supported;
        }
        if can.mcp_capabilities.http {
            let server = McpServerHttp::new(TOOL_SERVER_NAME, TOOL_SERVER_URL);
            self.tool_servers = vec![McpServer::Http(server)];
        }
        if can.session_capabilities.list.is_none() || can.session_capabilities.resume.is_none() {
            return self.request_new_session();
        }
        let list = ListSessionsRequest::new().cwd(std::path::PathBuf::from(self.folder));
        Incoming::Answer(encode_rpc_request(LIST, AGENT_METHOD_NAMES.session_list, list))
    }

    fn request_new_session(&mut self) -> Incoming {
        self.stage = AcpStage::Opening { resumed: None };
        Incoming::Answer(encode_rpc_request(
            NEW,
            AGENT_METHOD_NAMES.session_new,
            NewSessionRequest::new(self.folder).mcp_servers(self.tool_servers.clone()),
        ))
    }

    fn mark_session_ready(&mut self, session: SessionId) -> Incoming {
        self.stage = AcpStage::Ready(session);
        Incoming::Event(AgentEvent::Ready)
    }

    /// What became of a steer, if this is the answer to one. A steer that was not taken waits for the next
    /// turn, whatever the reason.
    fn handle_steer_response(&mut self, id: &str, outcome: &Result<Value, RpcError>) -> Option<Incoming> {
        let position = self.steers.iter().position(|steer| steer == id)?;
        self.steers.remove(position);
        Some(match outcome {
            Ok(result) if result["taken"] == true => Incoming::Event(AgentEvent::SteerTaken),
            Ok(_) => Incoming::Nothing,
            Err(error) => {
                error.log_as("The engine takes nothing during a turn");
                Incoming::Nothing
            }
        })
    }

    fn handle_prompt_response(&mut self, id: &str, outcome: Result<Value, RpcError>) -> Incoming {
        if let Some(compaction) = self.compaction.as_mut().filter(|compaction| compaction.id == id) {
            compaction.is_answered = true;
            if let Err(error) = outcome {
                error.log_as("The engine does not put its history into a summary");
                compaction.end = Some(CompactionEnd::Failed);
            }
            return self.end_compaction().map_or(Incoming::Nothing, Incoming::Event);
        }
        let Some(position) = self.prompts.iter().position(|prompt| prompt == id) else {
            return Incoming::Nothing;
        };
        self.prompts.remove(position);
        Incoming::Event(AgentEvent::TurnOver(match outcome {
            Ok(result) => parse_turn_end(result, self.words),
            Err(error) => TurnEnd::Failed(prompt_failure(&error)),
        }))
    }

    fn handle_session_update(&mut self, params: Value) -> Incoming {
        let Some(SessionNotification { update, .. }) = parse_json_value(params) else {
            trace!("The engine reports what is not known here");
            return Incoming::Nothing;
        };
        let thinks = matches!(update, SessionUpdate::AgentThoughtChunk(_));
        let event = self.event_from_update(update);
        let is_sign = thinks || event.is_some();
        if is_sign && self.turn == AcpTurnState::Asked && !self.prompts.is_empty() {
            self.turn = AcpTurnState::Begun;
            return match event {
                Some(event) => Incoming::Events(AgentEvent::StepBegan, event),
                None => Incoming::Event(AgentEvent::StepBegan),
            };
        }
        event.map_or(Incoming::Nothing, Incoming::Event)
    }

    fn event_from_update(&mut self, update: SessionUpdate) -> Option<AgentEvent> {
        if let SessionUpdate::ToolCall(call) = update {
            if self.words == TurnTextState::Some {
                self.words = TurnTextState::BeforeATool;
            }
            return Some(AgentEvent::Working { tool: take_excerpt(&call.title) });
        }
        if let SessionUpdate::AgentMessageChunk(chunk) = update
            && let ContentBlock::Text(text) = chunk.content
        {
            return self.event_from_text(text.text);
        }
        None
    }

    /// Its end, once the engine has told it and answered.
    fn end_compaction(&mut self) -> Option<AgentEvent> {
        let end = self.compaction.as_ref().filter(|compaction| compaction.is_answered)?.end?;
        self.compaction = None;
        Some(AgentEvent::CompactionOver(end))
    }

    fn event_from_text(&mut self, text: String) -> Option<AgentEvent> {
        if let Some(compaction) = &mut self.compaction {
            compaction.end = match text.as_str() {
                text if text.starts_with(COMPACTED) => Some(CompactionEnd::Done),
                text if text.starts_with(COMPACTION_CANCELLED) => Some(CompactionEnd::Failed),
                text if text.starts_with(COMPACT_REFUSED) && text.contains(NOTHING_TO_COMPACT) => {
                    Some(CompactionEnd::NothingThere)
                }
                text if text.starts_with(COMPACT_REFUSED) => Some(CompactionEnd::Failed),
                _ => compaction.end,
            };
            return self.end_compaction();
        }
        if text.is_empty() || REMARKS.iter().any(|remark| text.starts_with(remark)) {
            return None;
        }
        let text = match self.words {
            TurnTextState::BeforeATool => format!("\n\n{text}"),
            TurnTextState::None | TurnTextState::Some => text,
        };
        self.words = TurnTextState::Some;
        Some(AgentEvent::AnswerText(text))
    }

    fn loss_from_invalid_line(&mut self, line: &[u8]) -> EngineLoss {
        let mut garbage = String::new();
        append_excerpt(&mut garbage, line);
        match &self.stage {
            AcpStage::Ready(_) => EngineLoss::Garbage { said: garbage },
            AcpStage::Opening { .. } => EngineLoss::NeverReady { said: garbage },
        }
    }

    /// The text comes first, since it says whose the pictures are. An engine that takes no pictures reads
    /// their paths in it.
    fn prompt_content_blocks(&self, input: EngineInput) -> Vec<ContentBlock> {
        let mut blocks = vec![ContentBlock::from(input.text)];
        if self.sight == ImageSupport::Supported {
            blocks.extend(input.images.into_iter().map(|image| {
                ContentBlock::Image(ImageContent::new(BASE64_STANDARD.encode(&image.bytes), image.mime))
            }));
        }
        blocks
    }
}

impl Protocol for AcpProtocol {
    fn encode_request(&mut self, asked: Request) -> Outgoing {
        let session = match &self.stage {
            AcpStage::Ready(session) => session.clone(),
            // The session has not been told that it may ask.
            AcpStage::Opening { .. } => {
                return if asked == Request::Close { Outgoing::Close } else { Outgoing::Nothing };
            }
        };
        match asked {
            Request::Prompt(input) => {
                self.asked += 1;
                // A steer without an answer by now was not taken.
                self.steers.clear();
                self.turn = AcpTurnState::Asked;
                self.words = TurnTextState::None;
                let id = format!("prompt-{}", self.asked);
                let prompt = PromptRequest::new(session, self.prompt_content_blocks(input));
                let line = encode_rpc_request(&id, AGENT_METHOD_NAMES.session_prompt, prompt);
                self.prompts.push(id);
                Outgoing::Line(line)
            }
            Request::Steer(input) => {
                self.asked += 1;
                let id = format!("steer-{}", self.asked);
                let line = encode_rpc_request(
                    &id,
                    STEER,
                    PromptRequest::new(session, self.prompt_content_blocks(input)),
                );
                self.steers.push(id);
                Outgoing::Line(line)
            }
            Request::Compact => {
                self.asked += 1;
                let id = format!("compact-{}", self.asked);
                let prompt = PromptRequest::new(session, vec![ContentBlock::from(COMPACT.to_owned())]);
                let line = encode_rpc_request(&id, AGENT_METHOD_NAMES.session_prompt, prompt);
                self.compaction = Some(AcpCompaction { id, is_answered: false, end: None });
                Outgoing::Line(line)
            }
            Request::Cancel => {
                let cancel = CancelNotification::new(session);
                Outgoing::Line(encode_rpc_notification(AGENT_METHOD_NAMES.session_cancel, cancel))
            }
            // This engine calls the tools over MCP.
            Request::ToolAnswer { .. } => Outgoing::Nothing,
            Request::Close => Outgoing::Close,
        }
    }

    fn handle_line(&mut self, line: &[u8]) -> Incoming {
        if line.trim_ascii().is_empty() {
            return Incoming::Nothing;
        }
        let Some(message) = parse_rpc_line(line) else {
            return Incoming::Lost(self.loss_from_invalid_line(line));
        };
        match message {
            RpcMessage::Request { id, method, params } => {
                Incoming::Answer(answer_engine_request(&id, &method, params))
            }
            RpcMessage::Notification { method, params } if method == CLIENT_METHOD_NAMES.session_update => {
                self.handle_session_update(params)
            }
            RpcMessage::Response { id, outcome } => self.handle_rpc_response(&id, outcome),
            RpcMessage::Notification { .. } | RpcMessage::Other => Incoming::Nothing,
        }
    }

    fn handle_long_line_start(&mut self, beginning: &[u8]) -> Incoming {
        if matches!(self.stage, AcpStage::Ready(_)) && beginning.starts_with(UPDATE_BEGINNING) {
            debug!("An update of the engine is too long and was skipped");
            return Incoming::Nothing;
        }
        Incoming::Lost(self.loss_from_invalid_line(beginning))
    }

    fn handle_stdout_end(mut self, rest: &[u8]) -> EngineLoss {
        match &self.stage {
            AcpStage::Ready(_) => EngineLoss::Ended,
            AcpStage::Opening { .. } => self.loss_from_invalid_line(rest),
        }
    }
}

/// The request that tells a resumed session the model that it has; `None` if it has none.
fn model_request(session: &SessionId, resumed: Value) -> Option<String> {
    let options = parse_json_value::<ResumeSessionResponse>(resumed)?.config_options?;
    let option = options.into_iter().find(|option| &*option.id.0 == MODEL)?;
    let SessionConfigKind::Select(select) = option.kind else { return None };
    if select.current_value.0.is_empty() {
        return None;
    }
    let request = SetSessionConfigOptionRequest::new(session.clone(), option.id, select.current_value);
    Some(encode_rpc_request(MODEL, AGENT_METHOD_NAMES.session_set_config_option, request))
}

fn handshake_failure(error: &RpcError) -> Incoming {
    Incoming::Lost(EngineLoss::NeverReady { said: error.excerpt() })
}

/// How a turn ended, as far as the engine says. If the model's API refuses a request, the turn ends like any
/// other: without a word, or in the middle of the answer.
fn parse_turn_end(result: Value, words: TurnTextState) -> TurnEnd {
    let Some(PromptResponse { stop_reason, .. }) = parse_json_value(result) else {
        return TurnEnd::Failed(Failure::new(Trouble::Internal, "Unknown end of a turn"));
    };
    match (stop_reason, words) {
        (StopReason::Cancelled, _) => TurnEnd::Cancelled,
        (StopReason::MaxTurnRequests, _) => TurnEnd::StepLimit(0),
        (StopReason::Refusal, _) => {
            TurnEnd::Failed(Failure::new(Trouble::BadRequest, "The model would not answer (ACP refusal)"))
        }
        (_, TurnTextState::None) => {
            TurnEnd::Failed(Failure::new(Trouble::EmptyAnswer, "The turn ended without a word (ACP)"))
        }
        (_, TurnTextState::Some | TurnTextState::BeforeATool) => TurnEnd::FinishedOrFailed,
    }
}

/// A refused prompt. The egress proxy has heard for itself why Kimi refuses: an engine's word says nothing
/// about the account.
fn prompt_failure(error: &RpcError) -> Failure {
    Failure::new(Trouble::Internal, format!("{} (ACP {})", error.excerpt(), error.code))
}

/// Answers so that the turn goes on. The container is the limit of what the agent may do, so every permission
/// is given. Nobody is there to answer any other question.
fn answer_engine_request(id: &Value, method: &str, params: Value) -> String {
    if method != CLIENT_METHOD_NAMES.session_request_permission {
        debug!(method, "The engine asks something unknown");
        return encode_method_not_found(id, &format!("Unknown request: {}", take_excerpt(method)));
    }
    let options =
        parse_json_value::<RequestPermissionRequest>(params).map(|asked| asked.options).unwrap_or_default();
    let allowed = options.into_iter().find(|option| {
        matches!(option.kind, PermissionOptionKind::AllowOnce | PermissionOptionKind::AllowAlways)
    });
    let outcome = match allowed {
        Some(option) => RequestPermissionOutcome::Selected(SelectedPermissionOutcome::new(option.option_id)),
        None => RequestPermissionOutcome::Cancelled,
    };
    encode_rpc_result(id, RequestPermissionResponse::new(outcome))
}

fn parse_json_value<T: DeserializeOwned>(value: Value) -> Option<T> {
    serde_json::from_value(value).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::jsonrpc::METHOD_NOT_FOUND;
    use super::*;
    use crate::agent::Image;
    use crate::types::Outage;

    const GREETED: &str = r#"{"jsonrpc":"2.0","id":"initialize","result":{"protocolVersion":1,"agentCapabilities":{"loadSession":true,"promptCapabilities":{"image":true,"audio":false,"embeddedContext":true},"sessionCapabilities":{"list":{},"resume":{},"close":{}}},"authMethods":[]}}"#;
    const NONE_FOUND: &str = r#"{"jsonrpc":"2.0","id":"list","result":{"sessions":[],"nextCursor":null}}"#;
    const TWO_FOUND: &str = r#"{"jsonrpc":"2.0","id":"list","result":{"sessions":[
        {"sessionId":"session_old","cwd":"/w","title":"a","updatedAt":"2026-11-27T02:51:43.647Z"},
        {"sessionId":"session_new","cwd":"/w","title":null,"updatedAt":"2026-11-28T02:51:43.647Z"}]}}"#;
    const OPENED: &str =
        r#"{"jsonrpc":"2.0","id":"new","result":{"sessionId":"session_1","configOptions":[],"modes":null}}"#;

    fn answered(heard: Incoming) -> Value {
        let Incoming::Answer(line) = heard else { panic!("{heard:?} is no answer") };
        assert!(!line.contains('\n'), "{line}");
        serde_json::from_str(&line).unwrap()
    }

    fn ready() -> AcpProtocol {
        let (mut acp, _) = AcpProtocol::start_handshake("/w");
        assert_eq!(answered(acp.handle_line(GREETED.as_bytes()))["method"], "session/list");
        assert_eq!(answered(acp.handle_line(NONE_FOUND.as_bytes()))["method"], "session/new");
        assert_eq!(acp.handle_line(OPENED.as_bytes()), Incoming::Event(AgentEvent::Ready));
        acp
    }

    fn prompted() -> AcpProtocol {
        let mut acp = ready();
        let asked = acp.encode_request(Request::Prompt(EngineInput::from_text("hi")));
        assert!(matches!(&asked, Outgoing::Line(line) if line.contains("prompt-1")), "{asked:?}");
        acp
    }

    fn update(update: &str) -> String {
        format!(
            r#"{{"jsonrpc":"2.0","method":"session/update","params":{{"sessionId":"session_1","update":{update}}}}}"#
        )
    }

    fn chunk(text: &str) -> String {
        let text = serde_json::to_string(text).unwrap();
        update(&format!(
            r#"{{"sessionUpdate":"agent_message_chunk","content":{{"type":"text","text":{text}}}}}"#
        ))
    }

    const TOOL: &str = r#"{"sessionUpdate":"tool_call","toolCallId":"1:Bash:0af826","title":"Bash","kind":"execute","status":"pending","content":[{"type":"content","content":{"type":"text","text":""}}]}"#;

    fn over(stop_reason: &str) -> String {
        format!(r#"{{"jsonrpc":"2.0","id":"prompt-1","result":{{"stopReason":"{stop_reason}"}}}}"#)
    }

    fn said(text: &str) -> Incoming {
        Incoming::Event(AgentEvent::AnswerText(text.to_owned()))
    }

    #[test]
    fn a_compaction_ends_when_the_engine_has_answered_and_told_its_end() {
        let asked_to_compact = || {
            let mut acp = ready();
            let asked = acp.encode_request(Request::Compact);
            assert!(
                matches!(&asked, Outgoing::Line(line) if line.contains(r#""text":"/compact""#)),
                "{asked:?}"
            );
            acp
        };
        let answered = r#"{"jsonrpc":"2.0","id":"compact-1","result":{"stopReason":"end_turn"}}"#.to_owned();
        let began = chunk("Context compaction started — it runs in the background and …");
        let done = chunk("Compaction completed.\n- Messages compacted: 7");
        let over = |end| Incoming::Event(AgentEvent::CompactionOver(end));
        for (told, end) in [
            (vec![&began, &answered, &done], CompactionEnd::Done),
            (vec![&began, &done, &answered], CompactionEnd::Done),
            (vec![&began, &answered, &chunk("Compaction cancelled.")], CompactionEnd::Failed),
            (
                vec![&chunk("/compact failed: No messages to compact in current history."), &answered],
                CompactionEnd::NothingThere,
            ),
            (
                vec![&chunk("/compact failed: Cannot compact while a turn is active."), &answered],
                CompactionEnd::Failed,
            ),
        ] {
            let mut acp = asked_to_compact();
            let (last, before) = told.split_last().unwrap();
            for line in before {
                assert_eq!(acp.handle_line(line.as_bytes()), Incoming::Nothing, "{line}");
            }
            assert_eq!(acp.handle_line(last.as_bytes()), over(end));
            acp.encode_request(Request::Prompt(EngineInput::from_text("hi")));
            let heard = acp.handle_line(chunk("Hello.").as_bytes());
            let begins = Incoming::Events(AgentEvent::StepBegan, AgentEvent::AnswerText("Hello.".to_owned()));
            assert_eq!(heard, begins, "the next turn is as always");
        }
        let refused =
            r#"{"jsonrpc":"2.0","id":"compact-1","error":{"code":-32600,"message":"turn.agent_busy"}}"#;
        assert_eq!(asked_to_compact().handle_line(refused.as_bytes()), over(CompactionEnd::Failed));
    }

    #[test]
    fn the_greeting_offers_nothing_of_the_hosts() {
        let (_, greeting) = AcpProtocol::start_handshake("/w");
        let greeting: Value = serde_json::from_str(&greeting).unwrap();
        assert_eq!((&greeting["method"], &greeting["id"]), (&json!("initialize"), &json!("initialize")));
        assert_eq!(greeting["params"]["protocolVersion"], 1);
        let can = &greeting["params"]["clientCapabilities"];
        assert_eq!(
            (&can["fs"]["readTextFile"], &can["fs"]["writeTextFile"], &can["terminal"]),
            (&json!(false), &json!(false), &json!(false))
        );
        assert_eq!(greeting["params"]["clientInfo"]["name"], "nanokimi");
    }

    #[test]
    fn the_newest_history_is_gone_on_with() {
        let (mut acp, _) = AcpProtocol::start_handshake("/w");
        let list = answered(acp.handle_line(GREETED.as_bytes()));
        assert_eq!(list["params"]["cwd"], "/w");
        let resume = answered(acp.handle_line(TWO_FOUND.replace('\n', " ").as_bytes()));
        assert_eq!(resume["method"], "session/resume");
        assert_eq!(resume["params"]["sessionId"], "session_new");
        assert_eq!(
            acp.handle_line(br#"{"jsonrpc":"2.0","id":"resume","result":{}}"#),
            Incoming::Event(AgentEvent::Ready)
        );
        let Outgoing::Line(prompt) = acp.encode_request(Request::Prompt(EngineInput::from_text("hi"))) else {
            panic!()
        };
        assert!(prompt.contains("session_new"), "{prompt}");
    }

    #[test]
    fn a_resumed_session_is_told_its_model() {
        let resumed = br#"{"jsonrpc":"2.0","id":"resume","result":{"configOptions":[{"type":"select","id":"model","name":"Model","category":"model","currentValue":"kimi-for-coding","options":[{"value":"kimi-for-coding","name":"kimi-for-coding"}]},{"type":"select","id":"thinking","name":"Thinking","category":"thought_level","currentValue":"on","options":[{"value":"on","name":"On"}]}]}}"#;
        let told = br#"{"jsonrpc":"2.0","id":"model","result":{"configOptions":[]}}"#;
        let refused = br#"{"jsonrpc":"2.0","id":"model","error":{"code":-32603,"message":"no such model"}}"#;
        for answer in [&told[..], &refused[..]] {
            let (mut acp, _) = AcpProtocol::start_handshake("/w");
            acp.handle_line(GREETED.as_bytes());
            acp.handle_line(TWO_FOUND.as_bytes());
            let model = answered(acp.handle_line(resumed));
            assert_eq!(model["method"], "session/set_config_option");
            assert_eq!(
                model["params"],
                json!({"sessionId": "session_new", "configId": "model", "value": "kimi-for-coding"})
            );
            assert_eq!(acp.handle_line(answer), Incoming::Event(AgentEvent::Ready));
        }
        let (mut acp, _) = AcpProtocol::start_handshake("/w");
        acp.handle_line(GREETED.as_bytes());
        acp.handle_line(TWO_FOUND.as_bytes());
        let without = resumed.to_vec();
        let without = String::from_utf8(without)
            .unwrap()
            .replace(r#""currentValue":"kimi-for-coding""#, r#""currentValue":"""#);
        assert_eq!(acp.handle_line(without.as_bytes()), Incoming::Event(AgentEvent::Ready));
    }

    #[test]
    fn a_history_that_cannot_be_gone_on_with_gives_way_to_a_new_one() {
        let (mut acp, _) = AcpProtocol::start_handshake("/w");
        acp.handle_line(GREETED.as_bytes());
        acp.handle_line(TWO_FOUND.as_bytes());
        let refused =
            br#"{"jsonrpc":"2.0","id":"resume","error":{"code":-32602,"message":"Unknown sessionId"}}"#;
        assert_eq!(answered(acp.handle_line(refused))["method"], "session/new");
        assert_eq!(acp.handle_line(OPENED.as_bytes()), Incoming::Event(AgentEvent::Ready));

        let (mut acp, _) = AcpProtocol::start_handshake("/w");
        acp.handle_line(GREETED.as_bytes());
        let lost = br#"{"jsonrpc":"2.0","id":"list","error":{"code":-32603,"message":"index"}}"#;
        assert_eq!(answered(acp.handle_line(lost))["method"], "session/new");

        let (mut acp, _) = AcpProtocol::start_handshake("/w");
        let simple = br#"{"jsonrpc":"2.0","id":"initialize","result":{"protocolVersion":1}}"#;
        assert_eq!(answered(acp.handle_line(simple))["method"], "session/new", "an engine that keeps none");
    }

    #[test]
    fn requests_are_lines() {
        let (mut acp, _) = AcpProtocol::start_handshake("/w");
        assert_eq!(
            acp.encode_request(Request::Prompt(EngineInput::from_text("too early"))),
            Outgoing::Nothing
        );
        assert_eq!(acp.encode_request(Request::Close), Outgoing::Close);

        let mut acp = ready();
        let image = Image { mime: "image/png", bytes: vec![1, 2, 3] };
        let Outgoing::Line(line) = acp.encode_request(Request::Prompt(EngineInput {
            text: "<messages>\n\"hi\" 👋".to_owned(),
            images: vec![image],
        })) else {
            panic!()
        };
        let prompt: Value = serde_json::from_str(&line).unwrap();
        assert!(!line.contains('\n'), "{line}");
        assert_eq!(
            prompt,
            json!({"jsonrpc": "2.0", "id": "prompt-1", "method": "session/prompt", "params": {
                "sessionId": "session_1",
                "prompt": [
                    {"type": "text", "text": "<messages>\n\"hi\" 👋"},
                    {"type": "image", "data": "AQID", "mimeType": "image/png"},
                ],
            }})
        );
        let Outgoing::Line(cancel) = acp.encode_request(Request::Cancel) else { panic!() };
        let cancel: Value = serde_json::from_str(&cancel).unwrap();
        assert_eq!(
            cancel,
            json!({"jsonrpc": "2.0", "method": "session/cancel", "params": {"sessionId": "session_1"}})
        );
        assert_eq!(acp.encode_request(Request::Close), Outgoing::Close);
    }

    #[test]
    fn an_engine_without_eyes_is_shown_no_pictures() {
        let (mut acp, _) = AcpProtocol::start_handshake("/w");
        acp.handle_line(GREETED.replace(r#""image":true"#, r#""image":false"#).as_bytes());
        acp.handle_line(NONE_FOUND.as_bytes());
        acp.handle_line(OPENED.as_bytes());
        let image = Image { mime: "image/png", bytes: vec![1] };
        let Outgoing::Line(line) =
            acp.encode_request(Request::Prompt(EngineInput { text: "look".to_owned(), images: vec![image] }))
        else {
            panic!()
        };
        assert!(line.contains("look") && !line.contains("image"), "{line}");
    }

    #[test]
    fn a_turn_as_it_was_recorded() {
        let mut acp = prompted();
        let thought = r#"{"sessionUpdate":"agent_thought_chunk","content":{"type":"text","text":"hm"}}"#;
        let commands = r#"{"sessionUpdate":"available_commands_update","availableCommands":[{"name":"compact","description":"c","input":{"hint":"h"}}]}"#;
        let running = r#"{"sessionUpdate":"tool_call_update","toolCallId":"1:Bash:0af826","status":"completed","content":[{"type":"content","content":{"type":"text","text":"hi\n"}}],"rawOutput":"hi\n"}"#;
        for (line, heard) in [
            (update(commands), Incoming::Nothing),
            (update(r#"{"sessionUpdate":"session_info_update","title":"SAY hello"}"#), Incoming::Nothing),
            (update(thought), Incoming::Event(AgentEvent::StepBegan)),
            (update(thought), Incoming::Nothing),
            (chunk("I will "), said("I will ")),
            (chunk("look."), said("look.")),
            (update(TOOL), Incoming::Event(AgentEvent::Working { tool: "Bash".to_owned() })),
            (update(running), Incoming::Nothing),
            (chunk("It is "), said("\n\nIt is ")),
            (chunk("42."), said("42.")),
            (over("end_turn"), Incoming::Event(AgentEvent::TurnOver(TurnEnd::FinishedOrFailed))),
            (update(r#"{"sessionUpdate":"usage_update","used":2187,"size":262144}"#), Incoming::Nothing),
        ] {
            assert_eq!(acp.handle_line(line.as_bytes()), heard, "{line}");
        }
    }

    #[test]
    fn what_the_engine_says_of_itself_is_no_answer() {
        let mut acp = prompted();
        for remark in [
            "Compacting conversation context…",
            "Compaction completed.\n- Messages compacted: 12\n- Tokens before: 1",
            "Compaction cancelled.",
            "Compaction is blocked by the current turn; retry when the turn is idle.",
            "",
        ] {
            assert_eq!(acp.handle_line(chunk(remark).as_bytes()), Incoming::Nothing, "{remark}");
        }
        let word = "Compaction is a word.";
        let first = Incoming::Events(AgentEvent::StepBegan, AgentEvent::AnswerText(word.to_owned()));
        assert_eq!(acp.handle_line(chunk(word).as_bytes()), first);
    }

    #[test]
    fn a_steer_counts_when_the_engine_says_that_it_took_it() {
        let steer = |acp: &mut AcpProtocol| {
            let Outgoing::Line(line) = acp.encode_request(Request::Steer(EngineInput::from_text("more")))
            else {
                panic!()
            };
            let line: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(
                (&line["method"], &line["params"]["sessionId"]),
                (&json!("_session/steer"), &json!("session_1"))
            );
            assert_eq!(line["params"]["prompt"][0]["text"], "more");
            line["id"].as_str().unwrap().to_owned()
        };
        let mut acp = prompted();
        acp.handle_line(update(TOOL).as_bytes());
        let ids: Vec<String> = (0..4).map(|_| steer(&mut acp)).collect();
        let taken = Incoming::Event(AgentEvent::SteerTaken);
        for (id, outcome, heard) in [
            (&ids[0], r#""result":{"taken":true}"#, taken),
            (&ids[0], r#""result":{"taken":true}"#, Incoming::Nothing),
            (&ids[1], r#""result":{"taken":false}"#, Incoming::Nothing),
            (&ids[1], r#""result":{"taken":true}"#, Incoming::Nothing),
            (&ids[2], r#""error":{"code":-32601,"message":"Method not found"}"#, Incoming::Nothing),
            (&"steer-99".to_owned(), r#""result":{"taken":true}"#, Incoming::Nothing),
        ] {
            let line = format!(r#"{{"jsonrpc":"2.0","id":"{id}",{outcome}}}"#);
            assert_eq!(acp.handle_line(line.as_bytes()), heard, "{line}");
        }
        // What has no answer when the next prompt goes out is in that one.
        acp.handle_line(over("end_turn").as_bytes());
        acp.encode_request(Request::Prompt(EngineInput::from_text("more")));
        let late = format!(r#"{{"jsonrpc":"2.0","id":"{}","result":{{"taken":true}}}}"#, ids[3]);
        assert_eq!(acp.handle_line(late.as_bytes()), Incoming::Nothing);
    }

    #[test]
    fn a_turn_ends_as_the_engine_says_or_fails_without_a_word() {
        let failed = |trouble, detail: &str| TurnEnd::Failed(Failure::new(trouble, detail));
        for (line, silent, spoken) in [
            (
                over("end_turn"),
                failed(Trouble::EmptyAnswer, "The turn ended without a word (ACP)"),
                TurnEnd::FinishedOrFailed,
            ),
            (over("cancelled"), TurnEnd::Cancelled, TurnEnd::Cancelled),
            (over("max_turn_requests"), TurnEnd::StepLimit(0), TurnEnd::StepLimit(0)),
            (
                over("refusal"),
                failed(Trouble::BadRequest, "The model would not answer (ACP refusal)"),
                failed(Trouble::BadRequest, "The model would not answer (ACP refusal)"),
            ),
            (
                over("for_fun"),
                failed(Trouble::Internal, "Unknown end of a turn"),
                failed(Trouble::Internal, "Unknown end of a turn"),
            ),
            (
                r#"{"jsonrpc":"2.0","id":"prompt-1","error":{"code":-32000,"message":"Authentication required: 401 x"}}"#.to_owned(),
                failed(Trouble::Internal, "Authentication required: 401 x (ACP -32000)"),
                failed(Trouble::Internal, "Authentication required: 401 x (ACP -32000)"),
            ),
            (
                r#"{"jsonrpc":"2.0","id":"prompt-1","error":{"code":-32000,"message":"Authentication required: 403 x"}}"#.to_owned(),
                failed(Trouble::Internal, "Authentication required: 403 x (ACP -32000)"),
                failed(Trouble::Internal, "Authentication required: 403 x (ACP -32000)"),
            ),
            (
                r#"{"jsonrpc":"2.0","id":"prompt-1","error":{"code":-32600,"message":"busy"}}"#.to_owned(),
                failed(Trouble::Internal, "busy (ACP -32600)"),
                failed(Trouble::Internal, "busy (ACP -32600)"),
            ),
        ] {
            assert_eq!(prompted().handle_line(line.as_bytes()), Incoming::Event(AgentEvent::TurnOver(silent)), "{line}");
            let mut acp = prompted();
            acp.handle_line(chunk("hello").as_bytes());
            assert_eq!(acp.handle_line(line.as_bytes()), Incoming::Event(AgentEvent::TurnOver(spoken)), "{line}");
            assert_eq!(acp.handle_line(line.as_bytes()), Incoming::Nothing, "an end comes once");
        }
    }

    #[test]
    fn the_agent_has_leave_for_everything_and_nothing_else_is_offered() {
        let asked = |options: &str| {
            answered(ready().handle_line(
                format!(
                    r#"{{"jsonrpc":"2.0","id":7,"method":"session/request_permission","params":{{"sessionId":"session_1","toolCall":{{"toolCallId":"1"}},"options":[{options}]}}}}"#
                )
                .as_bytes(),
            ))
        };
        let no = r#"{"optionId":"no","name":"Reject","kind":"reject_once"}"#;
        let yes = r#"{"optionId":"yes","name":"Approve","kind":"allow_once"}"#;
        let outcome = asked(&format!("{no},{yes}"));
        assert_eq!(outcome["id"], 7);
        assert_eq!(outcome["result"]["outcome"], json!({"outcome": "selected", "optionId": "yes"}));
        assert_eq!(asked(no)["result"]["outcome"], json!({"outcome": "cancelled"}));
        let read = answered(ready().handle_line(
            br#"{"jsonrpc":"2.0","id":"f","method":"fs/read_text_file","params":{"path":"/etc"}}"#,
        ));
        assert_eq!((&read["id"], &read["error"]["code"]), (&json!("f"), &json!(METHOD_NOT_FOUND)));
        let no_id = br#"{"jsonrpc":"2.0","id":[[],{}],"method":"session/request_permission","params":{}}"#;
        assert_eq!(ready().handle_line(no_id), Incoming::Nothing, "an id is a text or a number");
    }

    #[test]
    fn an_engine_that_is_none_is_quoted() {
        let never = |said: &str| EngineLoss::NeverReady { said: said.to_owned() };
        let begun = || AcpProtocol::start_handshake("/w").0;
        assert_eq!(begun().handle_line(b"npm ERR! missing"), Incoming::Lost(never("npm ERR! missing")));
        assert_eq!(begun().handle_line(b"42"), Incoming::Lost(never("42")));
        assert_eq!(begun().handle_stdout_end(b"half a li"), never("half a li"));
        assert_eq!(
            begun().handle_line(br#"{"id":"initialize","error":{"code":-32602,"message":"no"}}"#),
            Incoming::Lost(never("no"))
        );
        let mut acp = begun();
        acp.handle_line(GREETED.as_bytes());
        acp.handle_line(NONE_FOUND.as_bytes());
        let locked = br#"{"id":"new","error":{"code":-32000,"message":"Authentication required"}}"#;
        assert_eq!(acp.handle_line(locked), Incoming::Lost(never("Authentication required")));

        let garbage = EngineLoss::Garbage { said: "Segmentation fault".to_owned() };
        assert_eq!(ready().handle_line(b"Segmentation fault"), Incoming::Lost(garbage));
        assert_eq!(ready().handle_stdout_end(b""), EngineLoss::Ended);
    }

    #[test]
    fn a_long_update_is_missed_and_any_other_long_line_is_the_end() {
        let long = update(r#"{"sessionUpdate":"tool_call_update","rawOutput":"xxx"#);
        assert_eq!(ready().handle_long_line_start(long.as_bytes()), Incoming::Nothing);
        assert!(matches!(
            AcpProtocol::start_handshake("/w").0.handle_long_line_start(long.as_bytes()),
            Incoming::Lost(_)
        ));
        assert!(matches!(ready().handle_long_line_start(br#"{"jsonrpc":"2.0","id":1,"#), Incoming::Lost(_)));
    }

    proptest! {
        #[test]
        fn no_line_is_beyond_understanding(line in prop::collection::vec(any::<u8>(), 0..200)) {
            for mut acp in [AcpProtocol::start_handshake("/w").0, prompted()] {
                acp.handle_line(&line);
                acp.handle_long_line_start(&line);
                acp.handle_stdout_end(&line);
            }
        }

        #[test]
        fn nothing_that_an_engine_says_is_a_trouble_of_the_account(
            code in prop_oneof![-32010_i64..-31990, any::<i64>()],
            words in prop_oneof!["Authentication required: [0-9]{3} .{0,20}", any::<String>()],
        ) {
            let error = json!({"id": "prompt-1", "error": {"code": code, "message": words}}).to_string();
            let Incoming::Event(AgentEvent::TurnOver(TurnEnd::Failed(failure))) = prompted().handle_line(error.as_bytes()) else {
                panic!("{error} ends the turn");
            };
            prop_assert_eq!(Outage::from_trouble(failure.trouble), None);
        }

        #[test]
        fn strange_updates_are_let_go(text in "[a-z_]{0,20}", number in any::<i64>()) {
            let mut acp = prompted();
            for strange in [
                format!(r#"{{"sessionUpdate":"{text}","content":{number}}}"#),
                format!(r#"{{"sessionUpdate":"agent_message_chunk","content":{{"type":"{text}"}}}}"#),
                format!("{number}"),
            ] {
                prop_assert_eq!(acp.handle_line(update(&strange).as_bytes()), Incoming::Nothing);
            }
        }

        #[test]
        fn whatever_is_prompted_is_one_line_and_arrives(text in any::<String>()) {
            let Outgoing::Line(line) = ready().encode_request(Request::Prompt(EngineInput::from_text(&text))) else { panic!() };
            prop_assert!(!line.contains('\n'));
            let line: Value = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(&line["params"]["prompt"][0]["text"], &json!(text));
        }
    }
}
