//! A scripted engine in place of a container. It speaks real lines, of wire or of ACP, over the same pipes
//! that Docker would give.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use nanokimi::container::{
    AgentMemory, CommandResult, ContainerExit, ContainerSpec, Containers, DaemonUser, RunningContainer,
    ShellCommand,
};
use nanokimi::rules::tasks::CommandEnd;
use nanokimi::types::{Engine, Failure, GroupName, InstallId, Trouble};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, duplex};
use tokio::sync::{mpsc, oneshot};

/// The words of a panic: they may be a piece of somebody's message.
const A_PIECE_OF_A_MESSAGE: &str = "what Ana wrote";

/// What a launched engine does.
#[derive(Clone, Debug, PartialEq)]
pub enum Behaviour {
    /// Answers each prompt with `echo: ` and the text of its last message.
    Echo,
    /// Answers each prompt with `echo: ` and the texts of all its messages and tasks. Starts without delay.
    EchoAll,
    /// The same with a line for each, but what says [`AS_A_FILE`] is the caption of the file [`REPORT`].
    EchoAllWithFiles,
    /// Hands each prompt to the story, which answers it.
    Held,
    /// The launch itself fails.
    NoLaunch(Trouble),
    /// The container runs, and then the host has a fault: what launches it panics.
    PanicsAtLaunch,
    /// Prints this in place of the protocol and ends with exit code 0, as kimi-cli 1.52 does.
    Says(&'static str),
    /// Runs, but never reports that it is ready.
    Mute,
    /// Ends in the middle of each turn.
    DiesInTurn,
    /// Answers nothing, not even a cancel.
    Hangs,
    /// In each turn prints a line that is not its protocol.
    Garbage,
    /// In each turn says a hundred thousand words, then finishes.
    Floods,
    /// Fails each turn with this wire error.
    Fails(i64, &'static str),
    /// Refuses prompts with pictures, as a model that cannot see does; hands the other prompts to the story.
    Blind,
}

/// The text that asks [`Behaviour::EchoAllWithFiles`] for a file.
pub const AS_A_FILE: &str = "as a file";
/// The file in a group's folder that it then sends.
pub const REPORT: &str = "report.txt";

/// A story's Docker: containers by name, and what the next launches will do.
#[derive(Clone)]
pub struct ScriptedDocker {
    state: Arc<Mutex<State>>,
    prompts: mpsc::UnboundedSender<HeldPrompt>,
}

#[derive(Default)]
struct State {
    next: VecDeque<Behaviour>,
    usual: Option<Behaviour>,
    daemon: Standing,
    running: HashMap<String, (ContainerSpec, oneshot::Sender<()>)>,
    most_at_once: usize,
    tries: usize,
    launches: Vec<ContainerSpec>,
    panics_at_removal: bool,
    /// How the next commands end, and after how long.
    command_ends: VecDeque<(CommandResult, Duration)>,
    commands: Vec<String>,
    memory: AgentMemory,
}

/// Whether Docker answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Standing {
    #[default]
    Answers,
    Silent,
}

/// A prompt that the story controls.
pub struct HeldPrompt {
    pub group: String,
    pub text: String,
    /// The pictures that came with it, as data URLs.
    pub images: Vec<String>,
    id: Value,
    engine: EngineEnd,
}

/// The protocol of an engine.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Speech {
    Wire,
    Acp,
}

impl Speech {
    fn of(spec: &ContainerSpec) -> Self {
        let name =
            spec.env.iter().find(|(name, _)| name == "NANOKIMI_ENGINE").map(|(_, value)| value.as_str());
        match Engine::parse(name.unwrap_or_default()).expect("a container is told which engine it has") {
            Engine::KimiCode => Self::Acp,
            Engine::KimiCli => Self::Wire,
        }
    }
}

#[derive(Clone)]
struct EngineEnd {
    speech: Speech,
    lines: mpsc::UnboundedSender<String>,
    requests: Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<Value>>>,
    /// The steers that were received and have no answer yet, if each gets an answer.
    steers: Arc<Mutex<VecDeque<Value>>>,
}

impl ScriptedDocker {
    pub fn new(usual: Behaviour) -> (Self, mpsc::UnboundedReceiver<HeldPrompt>) {
        let (prompts, receiver) = mpsc::unbounded_channel();
        let state = State { usual: Some(usual), ..State::default() };
        (Self { state: Arc::new(Mutex::new(state)), prompts }, receiver)
    }

    /// The next launch does this, once.
    pub fn next(&self, behaviour: Behaviour) {
        self.state().next.push_back(behaviour);
    }

    /// All launches from now on do this.
    pub fn usually(&self, behaviour: Behaviour) {
        self.state().usual = Some(behaviour);
    }

    /// The next command that is run in a container prints this and ends so, after a while.
    pub fn next_command(&self, end: CommandEnd, output: &str, after: Duration) {
        let result = CommandResult { end, output: output.to_owned() };
        self.state().command_ends.push_back((result, after));
    }

    /// The commands that were run in containers.
    pub fn commands(&self) -> Vec<String> {
        self.state().commands.clone()
    }

    /// The next removal of a container panics, once.
    pub fn panic_at_removal(&self) {
        self.state().panics_at_removal = true;
    }

    /// Docker is not there yet, or is being upgraded: it does not answer, and all containers have ended.
    pub fn goes_away(&self) {
        let mut state = self.state();
        state.daemon = Standing::Silent;
        state.running.clear();
    }

    /// The same, but running containers go on.
    pub fn stops_answering(&self) {
        self.state().daemon = Standing::Silent;
    }

    pub fn comes_back(&self) {
        self.state().daemon = Standing::Answers;
    }

    /// The groups whose agents run.
    pub fn running_groups(&self) -> Vec<String> {
        let mut groups: Vec<String> =
            self.state().running.values().map(|(spec, _)| spec.group.to_string()).collect();
        groups.sort();
        groups
    }

    /// How much memory the agents use from now on, and whether the machine is short of memory.
    pub fn holds(&self, memory: AgentMemory) {
        self.state().memory = memory;
    }

    pub fn running(&self) -> usize {
        self.state().running.len()
    }

    pub fn most_at_once(&self) -> usize {
        self.state().most_at_once
    }

    /// How many launches were tried.
    pub fn tries(&self) -> usize {
        self.state().tries
    }

    /// The groups in the order in which their containers were launched.
    pub fn launches(&self) -> Vec<String> {
        self.state().launches.iter().map(|spec| spec.group.to_string()).collect()
    }

    /// The engine's sessions with which the containers were launched, in that order.
    pub fn sessions(&self) -> Vec<String> {
        self.settings_of_launches("NANOKIMI_SESSION").into_iter().flatten().collect()
    }

    /// The models that the engines were told to use, in the order of the launches.
    pub fn models(&self) -> Vec<Option<String>> {
        self.settings_of_launches("NANOKIMI_MODEL")
    }

    fn settings_of_launches(&self, setting: &str) -> Vec<Option<String>> {
        let value = |spec: &ContainerSpec| {
            let mut settings = spec.env.iter();
            settings.find(|(name, _)| name == setting).map(|(_, value)| value.clone())
        };
        self.state().launches.iter().map(value).collect()
    }

    /// The folders of the host that the latest container was given beside its own: in the container, on the host.
    pub fn lent_folders(&self) -> Vec<(String, String)> {
        let state = self.state();
        let mounts = state.launches.last().into_iter().flat_map(|spec| &spec.mounts);
        let lent = mounts.filter(|mount| mount.container.starts_with("/workspace/extra"));
        lent.map(|mount| (mount.container.clone(), mount.host.display().to_string())).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Containers for ScriptedDocker {
    async fn ping_docker(&self) -> anyhow::Result<()> {
        match self.state().daemon {
            Standing::Answers => Ok(()),
            Standing::Silent => anyhow::bail!("Docker does not answer"),
        }
    }

    async fn fetch_daemon_user(&self) -> anyhow::Result<DaemonUser> {
        self.ping_docker().await?;
        Ok(DaemonUser::Rootless)
    }

    async fn run_command(&self, container: &str, command: &ShellCommand) -> anyhow::Result<CommandResult> {
        self.ping_docker().await?;
        let (result, after) = {
            let mut state = self.state();
            assert!(state.running.contains_key(container), "a command is run in a running container");
            state.commands.push(command.line.clone());
            state.command_ends.pop_front().expect("the story says how a command ends")
        };
        tokio::time::sleep(after).await;
        Ok(result)
    }

    async fn measure_group_memory(&self, _: Vec<(GroupName, PathBuf)>) -> AgentMemory {
        self.state().memory.clone()
    }

    async fn launch_container(&self, spec: &ContainerSpec) -> Result<RunningContainer, Failure> {
        self.ping_docker().await.map_err(|error| Failure::new(Trouble::NoDocker, error.to_string()))?;
        let behaviour = {
            let mut state = self.state();
            state.tries += 1;
            let usual = state.usual.clone().unwrap();
            state.next.pop_front().unwrap_or(usual)
        };
        if !matches!(behaviour, Behaviour::EchoAll | Behaviour::EchoAllWithFiles) {
            // It takes as long as the real one.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        if let Behaviour::NoLaunch(trouble) = behaviour {
            return Err(Failure::new(trouble, "the story wants it so"));
        }
        let (stdin, engine_stdin) = duplex(64 * 1024);
        let (engine_stdout, stdout) = duplex(64 * 1024);
        let (_, stderr) = duplex(64);
        let (kill, killed) = oneshot::channel();
        let (ended, exit) = oneshot::channel();
        {
            let mut state = self.state();
            state.launches.push(spec.clone());
            state.running.insert(spec.name.clone(), (spec.clone(), kill));
            state.most_at_once = state.most_at_once.max(state.running.len());
        }
        assert!(behaviour != Behaviour::PanicsAtLaunch, "{A_PIECE_OF_A_MESSAGE}");
        let docker = self.clone();
        let name = spec.name.clone();
        let (group, speech) = (spec.group.to_string(), Speech::of(spec));
        tokio::spawn(async move {
            tokio::select! {
                () = engine(behaviour, speech, group, engine_stdin, engine_stdout, docker.prompts.clone()) => {}
                _ = killed => {}
            }
            docker.state().running.remove(&name);
            ended.send(()).ok();
        });
        Ok(RunningContainer {
            name: spec.name.clone(),
            stdin: Box::new(stdin),
            stdout: Box::new(stdout),
            stderr: Box::new(stderr),
            exit: Box::pin(async {
                exit.await.ok();
                ContainerExit::Code(0)
            }),
        })
    }

    async fn remove_container(&self, name: &str) -> anyhow::Result<()> {
        let panics = std::mem::take(&mut self.state().panics_at_removal);
        assert!(!panics, "{A_PIECE_OF_A_MESSAGE}");
        self.state().running.remove(name);
        Ok(())
    }

    async fn remove_containers_of_group(&self, install: &InstallId, group: &GroupName) -> anyhow::Result<()> {
        self.state().running.retain(|_, (spec, _)| spec.install != *install || spec.group != *group);
        Ok(())
    }

    async fn remove_install_containers(&self, install: &InstallId) -> anyhow::Result<usize> {
        self.ping_docker().await?;
        let mut state = self.state();
        let before = state.running.len();
        state.running.retain(|_, (spec, _)| spec.install != *install);
        Ok(before - state.running.len())
    }
}

/// The engine's side of the pipes.
async fn engine(
    behaviour: Behaviour,
    speech: Speech,
    group: String,
    stdin: DuplexStream,
    mut stdout: DuplexStream,
    prompts: mpsc::UnboundedSender<HeldPrompt>,
) {
    let (lines, mut line_receiver) = mpsc::unbounded_channel::<String>();
    let (request_sender, requests) = mpsc::unbounded_channel();
    let end = EngineEnd {
        speech,
        lines,
        requests: Arc::new(tokio::sync::Mutex::new(requests)),
        steers: Arc::default(),
    };
    let writer = async move {
        while let Some(line) = line_receiver.recv().await {
            if stdout.write_all(line.as_bytes()).await.is_err() {
                return;
            }
        }
    };
    let reader = async move {
        if let Behaviour::Says(words) = behaviour {
            end.raw(words);
            return;
        }
        let mut stdin = BufReader::new(stdin).lines();
        while let Ok(Some(line)) = stdin.next_line().await {
            let request: Value = serde_json::from_str(&line).expect("the host speaks JSON");
            match request["method"].as_str() {
                Some("initialize") if behaviour != Behaviour::Mute => {
                    let pictures = json!({"promptCapabilities": {"image": true}});
                    end.result(&request["id"], json!({"protocolVersion": 1, "agentCapabilities": pictures}));
                }
                Some("session/new") => end.result(&request["id"], json!({"sessionId": "session_1"})),
                Some("prompt" | "session/prompt") => {
                    let (text, images) = match speech {
                        Speech::Wire => read_input(&request["params"]["user_input"]),
                        Speech::Acp => read_blocks(&request["params"]["prompt"]),
                    };
                    end.event("TurnBegin", json!({}));
                    let prompt = HeldPrompt {
                        group: group.clone(),
                        text,
                        images,
                        id: request["id"].clone(),
                        engine: end.clone(),
                    };
                    match &behaviour {
                        Behaviour::Blind if !prompt.images.is_empty() => {
                            let said =
                                "LLM model 'kimi-latest' does not support required capability: image_in.";
                            end.error(&prompt.id, -32002, said);
                        }
                        Behaviour::Held | Behaviour::Blind => {
                            prompts.send(prompt).unwrap_or_else(|_| panic!("the story is over"))
                        }
                        Behaviour::DiesInTurn => {
                            prompt.step();
                            return;
                        }
                        Behaviour::Hangs => prompt.step(),
                        Behaviour::Garbage => end.raw("Traceback (most recent call last):"),
                        Behaviour::Floods => {
                            prompt.step();
                            (0..100_000).for_each(|_| prompt.says("word "));
                            prompt.finish();
                        }
                        Behaviour::Fails(code, message) => end.error(&prompt.id, *code, message),
                        Behaviour::EchoAll => {
                            prompt.answer(&format!("echo: {}", told_texts(&prompt.text).join(" ")));
                        }
                        Behaviour::EchoAllWithFiles => {
                            let told = told_texts(&prompt.text);
                            prompt.answer(&told.iter().map(|text| echo_or_file(text)).collect::<String>());
                        }
                        Behaviour::Echo
                        | Behaviour::Mute
                        | Behaviour::NoLaunch(_)
                        | Behaviour::PanicsAtLaunch
                        | Behaviour::Says(_) => {
                            prompt.step();
                            prompt.says(&format!("echo: {}", last_message(&prompt.text)));
                            prompt.finish();
                        }
                    }
                }
                Some("cancel" | "session/cancel") if behaviour == Behaviour::Hangs => {}
                Some(_) | None => drop(request_sender.send(request)),
            }
        }
        // stdin is closed: a real engine saves its state and ends in about half a second.
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    // The host still reads what was written before the end.
    tokio::join!(writer, reader);
}

/// The text of a prompt or steer, and its pictures: plain text, or a list of parts that begins with the text.
fn read_input(input: &Value) -> (String, Vec<String>) {
    if let Some(text) = input.as_str() {
        return (text.to_owned(), Vec::new());
    }
    let (text, images) = input.as_array().expect("text or parts").split_first().expect("a text comes first");
    let url = |part: &Value| part["image_url"]["url"].as_str().expect("a picture is a data URL").to_owned();
    (text["text"].as_str().expect("a text comes first").to_owned(), images.iter().map(url).collect())
}

/// The same for ACP's blocks; a picture is known by its type.
fn read_blocks(blocks: &Value) -> (String, Vec<String>) {
    let (text, images) = blocks.as_array().expect("blocks").split_first().expect("a text comes first");
    let mime = |block: &Value| block["mimeType"].as_str().expect("a picture has a type").to_owned();
    (text["text"].as_str().expect("a text comes first").to_owned(), images.iter().map(mime).collect())
}

/// The text of the last message in a prompt.
fn last_message(prompt: &str) -> String {
    told_texts(prompt).pop().expect("a prompt holds a message")
}

fn echo_or_file(message: &str) -> String {
    match message.contains(AS_A_FILE) {
        true => format!("<file path=\"{REPORT}\">echo: {message}</file>\n"),
        false => format!("echo: {message}\n"),
    }
}

/// The texts that a prompt tells: those of messages, and those of tasks with the time of the run behind each.
fn told_texts(prompt: &str) -> Vec<String> {
    let ends = ["</message>", "</task>"].into_iter().flat_map(|end| prompt.match_indices(end));
    let mut ends: Vec<usize> = ends.map(|(end, _)| end).collect();
    ends.sort_unstable();
    ends.into_iter().map(|end| told_text(&prompt[..end])).collect()
}

/// The text at the end of this, which begins after the last tag.
fn told_text(up_to: &str) -> String {
    let (before, text) = up_to.rsplit_once('>').unwrap_or(("", up_to));
    let tag = before.rsplit_once('<').map_or("", |(_, tag)| tag);
    let time = tag.strip_prefix("task ").and_then(|tag| tag.split_once("time=\"")?.1.split('"').next());
    match time {
        Some(time) => format!("{} ({time})", text.trim()),
        None => text.trim().to_owned(),
    }
}

impl EngineEnd {
    fn raw(&self, line: &str) {
        self.lines.send(format!("{line}\n")).ok();
    }

    fn event(&self, kind: &str, payload: Value) {
        if self.speech == Speech::Acp {
            return;
        }
        let event =
            json!({"jsonrpc": "2.0", "method": "event", "params": {"type": kind, "payload": payload}});
        self.raw(&event.to_string());
    }

    fn result(&self, id: &Value, result: Value) {
        self.raw(&json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string());
    }

    fn error(&self, id: &Value, code: i64, message: &str) {
        let error = json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}});
        self.raw(&error.to_string());
    }
}

impl HeldPrompt {
    /// The engine calls its model: from now on steers are accepted.
    pub fn step(&self) {
        if self.engine.speech == Speech::Acp {
            self.updates(json!({
                "sessionUpdate": "agent_thought_chunk", "content": {"type": "text", "text": "Hm."},
            }));
        }
        self.engine.event("StepBegin", json!({"n": 1}));
    }

    pub fn says(&self, piece: &str) {
        if self.engine.speech == Speech::Acp {
            self.updates(json!({
                "sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": piece},
            }));
        }
        self.engine.event("ContentPart", json!({"type": "text", "text": piece}));
    }

    /// The engine says what nobody understands, as one that crashes.
    pub fn breaks_down(&self) {
        self.engine.raw("Traceback (most recent call last):");
    }

    pub fn finish(&self) {
        self.engine.event("TurnEnd", json!({}));
        self.engine.result(&self.id, json!({"status": "finished", "stopReason": "end_turn"}));
    }

    /// A report of an engine that speaks ACP.
    pub fn updates(&self, update: Value) {
        let params = json!({"sessionId": "session_1", "update": update});
        self.engine.raw(&json!({"jsonrpc": "2.0", "method": "session/update", "params": params}).to_string());
    }

    /// All steps of an ordinary turn.
    pub fn answer(&self, text: &str) {
        self.step();
        self.says(text);
        self.finish();
    }

    /// The turn fails with this wire error.
    pub fn fails(&self, code: i64, message: &str) {
        self.engine.error(&self.id, code, message);
    }

    pub fn status(&self, status: Value) {
        self.engine.result(&self.id, status);
    }

    /// The next request of this kind, such as `steer` or `cancel`; it is answered as the real engine does.
    pub async fn request(&self, method: &str) -> String {
        let mut requests = self.engine.requests.lock().await;
        let request = requests.recv().await.expect("the engine still runs");
        if request["method"] == "_session/steer" && method == "steer" {
            self.engine.steers.lock().unwrap().push_back(request["id"].clone());
            return read_blocks(&request["params"]["prompt"]).0;
        }
        assert_eq!(request["method"], method, "{request}");
        self.engine.result(&request["id"], json!({"status": "steered"}));
        if method == "steer" { read_input(&request["params"]["user_input"]).0 } else { String::new() }
    }

    /// The receipt: the steer has reached the model.
    pub fn takes_steer(&self, text: &str) {
        self.answers_steer(true);
        self.engine.event("SteerInput", json!({"user_input": text}));
    }

    /// The oldest steer has not reached the model, and will not.
    pub fn takes_no_steer(&self) {
        self.answers_steer(false);
    }

    fn answers_steer(&self, taken: bool) {
        if let Some(id) = self.engine.steers.lock().unwrap().pop_front() {
            self.engine.result(&id, json!({"taken": taken}));
        }
    }
}
