//! The group's MCP server (Model Context Protocol, over HTTP): tells the engine which tools the host has, and
//! hands each call on. It answers from memory but for the calls themselves, so that a slow host delays no
//! engine's start.
//!
//! Each request stands for itself: there are no sessions, and nothing is kept between two requests.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::body::Incoming;
use hyper::{Request, Response};
use rmcp::ServerHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorData, Implementation,
    ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::{RequestContext, RoleServer};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::tools::{HostTool, ToolAction, ToolAnswer};
use crate::types::Role;

/// The path of the tools on the group's socket.
const TOOLS_PATH: &str = "/mcp";
/// Largest request in bytes: a message of 65,536 characters with its JSON is below.
const REQUEST_MAX: usize = 512 * 1024;
/// How long a call may take, until the model is told that the host is busy. The engine waits a minute.
const CALL_TIMEOUT: Duration = Duration::from_secs(45);

/// A call of a tool, on its way to the session's task.
#[derive(Debug)]
pub struct ToolCall {
    pub tool: HostTool,
    pub action: ToolAction,
    pub answer: oneshot::Sender<ToolAnswer>,
}

/// The MCP server of one group.
pub struct ToolServer {
    service: StreamableHttpService<GroupTools, LocalSessionManager>,
}

impl ToolServer {
    /// For the agent of a group with this role. Its calls go to `calls`.
    pub fn new(role: Role, calls: mpsc::Sender<ToolCall>) -> Self {
        let tools = GroupTools { role, calls };
        let config = StreamableHttpServerConfig::default()
            .with_legacy_session_mode(false)
            .with_json_response(true)
            .with_max_request_body_bytes(REQUEST_MAX);
        Self { service: StreamableHttpService::new(move || Ok(tools.clone()), Arc::default(), config) }
    }

    pub fn is_tool_request(request: &Request<Incoming>) -> bool {
        request.uri().path() == TOOLS_PATH && request.uri().host().is_none()
    }

    pub async fn handle_tool_request(&self, request: Request<Incoming>) -> Response<Body> {
        self.service.handle(request).await.map(Body::new)
    }
}

/// What a group's agent is told of, and where its calls go.
#[derive(Clone)]
struct GroupTools {
    role: Role,
    calls: mpsc::Sender<ToolCall>,
}

impl GroupTools {
    async fn call_host_tool(&self, tool: HostTool, request: CallToolRequestParams) -> ToolAnswer {
        let action = match tool.parse_arguments(request.arguments.unwrap_or_default()) {
            Ok(action) => action,
            Err(why) => return ToolAnswer::failed(why),
        };
        let (answer, answered) = oneshot::channel();
        let call = async {
            self.calls.send(ToolCall { tool, action, answer }).await.ok()?;
            answered.await.ok()
        };
        match timeout(CALL_TIMEOUT, call).await {
            Ok(Some(answer)) => answer,
            Ok(None) | Err(_) => ToolAnswer::failed(
                "The host is busy, and may or may not have done it. Do not repeat it in this turn.",
            ),
        }
    }
}

impl ServerHandler for GroupTools {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new("nanokimi", env!("CARGO_PKG_VERSION")))
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let tools = HostTool::offered_to(self.role)
            .map(|tool| Tool::new(tool.tool_name(), tool.description(), tool.parameters()));
        Ok(ListToolsResult::with_all_items(tools.collect()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Some(tool) = HostTool::find_by_name(&request.name) else {
            return Err(ErrorData::invalid_params("There is no such tool", None));
        };
        let ToolAnswer { text, is_error } = self.call_host_tool(tool, request).await;
        let content = vec![ContentBlock::text(text)];
        Ok(if is_error { CallToolResult::error(content) } else { CallToolResult::success(content) }.into())
    }
}
