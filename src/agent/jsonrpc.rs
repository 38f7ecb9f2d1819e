//! JSON-RPC 2.0 over lines, as both engines speak it: one message a line, and every message an object.
//!
//! Pure: text in, values out. What the methods mean is for the protocols to say.

use serde::Serialize;
use serde_json::{Value, json};
use tracing::debug;

use super::excerpt::take_excerpt;

/// The code for "no such method".
pub const METHOD_NOT_FOUND: i64 = -32601;

/// One line of the engine.
#[derive(Debug, PartialEq)]
pub enum RpcMessage {
    /// The engine asks us. `id` goes back as it came.
    Request { id: Value, method: String, params: Value },
    /// The engine tells us something.
    Notification { method: String, params: Value },
    /// The engine answers us. Our ids are texts.
    Response { id: String, outcome: Result<Value, RpcError> },
    /// An object of another shape.
    Other,
}

/// Why a request was refused.
#[derive(Debug, PartialEq)]
pub struct RpcError {
    pub code: i64,
    pub message: String,
}

impl RpcError {
    fn from_value(error: &Value) -> Self {
        Self {
            code: error["code"].as_i64().unwrap_or_default(),
            message: error["message"].as_str().unwrap_or_default().to_owned(),
        }
    }

    /// Writes into the log what has failed, with the engine's own words.
    pub fn log_as(&self, what: &str) {
        debug!(code = self.code, said = self.excerpt(), "{what}");
    }

    /// The beginning of the engine's own words.
    pub fn excerpt(&self) -> String {
        take_excerpt(&self.message)
    }
}

/// Tells what a line is; `None` is a line that is no JSON object. Objects of a shape that we do not know are
/// [`RpcMessage::Other`]: a later engine may say more.
pub fn parse_rpc_line(line: &[u8]) -> Option<RpcMessage> {
    let Ok(Value::Object(mut message)) = serde_json::from_slice(line) else { return None };
    let method = message.remove("method").map(|method| method.as_str().unwrap_or_default().to_owned());
    let id = message.remove("id").filter(is_rpc_id);
    let params = message.remove("params").unwrap_or_default();
    Some(match (method, id) {
        (Some(method), Some(id)) => RpcMessage::Request { id, method, params },
        (Some(method), None) => RpcMessage::Notification { method, params },
        (None, Some(Value::String(id))) => {
            let outcome = match message.remove("error") {
                Some(error) if !error.is_null() => Err(RpcError::from_value(&error)),
                _ => Ok(message.remove("result").unwrap_or_default()),
            };
            RpcMessage::Response { id, outcome }
        }
        (None, None) if message.contains_key("error") => {
            RpcError::from_value(&message["error"]).log_as("The engine does not understand a line of ours");
            RpcMessage::Other
        }
        (None, _) => {
            debug!("The engine says something that is not of its protocol");
            RpcMessage::Other
        }
    })
}

/// Whether this is an id of JSON-RPC, which goes back as it came: a text or a number.
pub fn is_rpc_id(value: &Value) -> bool {
    value.is_string() || value.is_number()
}

/// A line that asks the engine. The id is a text: kimi-cli answers a number with "Invalid request" and no id.
pub fn encode_rpc_request(id: &str, method: &str, params: impl Serialize) -> String {
    json!({"jsonrpc": "2.0", "method": method, "id": id, "params": params}).to_string()
}

/// A line that tells the engine something.
pub fn encode_rpc_notification(method: &str, params: impl Serialize) -> String {
    json!({"jsonrpc": "2.0", "method": method, "params": params}).to_string()
}

/// A line that answers the engine.
pub fn encode_rpc_result(id: &Value, result: impl Serialize) -> String {
    json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string()
}

/// A line that answers a request that we do not know. Without an answer its turn would be held for ever.
pub fn encode_method_not_found(id: &Value, message: &str) -> String {
    json!({"jsonrpc": "2.0", "id": id, "error": {"code": METHOD_NOT_FOUND, "message": message}}).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_is_a_request_a_notification_or_a_response() {
        let error = |code, message: &str| RpcError { code, message: message.to_owned() };
        let response = |outcome| RpcMessage::Response { id: "a".to_owned(), outcome };
        for (line, expected) in [
            (
                r#"{"method":"ask","id":7,"params":[1]}"#,
                RpcMessage::Request { id: json!(7), method: "ask".to_owned(), params: json!([1]) },
            ),
            (
                r#"{"method":5,"id":"x"}"#,
                RpcMessage::Request { id: json!("x"), method: String::new(), params: Value::Null },
            ),
            (
                r#"{"method":"tell","id":null}"#,
                RpcMessage::Notification { method: "tell".to_owned(), params: Value::Null },
            ),
            (
                r#"{"method":"tell","id":[[],{}]}"#,
                RpcMessage::Notification { method: "tell".to_owned(), params: Value::Null },
            ),
            (r#"{"id":"a","result":3}"#, response(Ok(json!(3)))),
            (r#"{"id":"a","result":3,"error":null}"#, response(Ok(json!(3)))),
            (r#"{"id":"a"}"#, response(Ok(Value::Null))),
            (
                r#"{"id":"a","error":{"code":-32601,"message":"no"},"result":3}"#,
                response(Err(error(METHOD_NOT_FOUND, "no"))),
            ),
            (r#"{"id":"a","error":"odd"}"#, response(Err(error(0, "")))),
            (r#"{"id":7,"result":3}"#, RpcMessage::Other),
            (r#"{"id":null,"error":{"code":-32700,"message":"Invalid JSON"}}"#, RpcMessage::Other),
            ("{}", RpcMessage::Other),
        ] {
            assert_eq!(parse_rpc_line(line.as_bytes()), Some(expected), "{line}");
        }
    }

    #[test]
    fn a_line_that_is_no_object_is_none_of_them() {
        for line in ["", "42", "[1,2]", "Traceback", r#"{"torn"#, "\u{fffd}"] {
            assert_eq!(parse_rpc_line(line.as_bytes()), None, "{line}");
        }
        assert_eq!(parse_rpc_line(b"{\"a\":\"\xff\"}"), None);
    }

    #[test]
    fn what_we_say_is_one_line_of_a_known_order() {
        assert_eq!(
            encode_rpc_request("a-1", "ask", json!({"text": "two\nlines"})),
            r#"{"jsonrpc":"2.0","method":"ask","id":"a-1","params":{"text":"two\nlines"}}"#
        );
        assert_eq!(
            encode_rpc_notification("tell", json!({})),
            r#"{"jsonrpc":"2.0","method":"tell","params":{}}"#
        );
        assert_eq!(encode_rpc_result(&json!(7), [1]), r#"{"jsonrpc":"2.0","id":7,"result":[1]}"#);
        assert_eq!(
            encode_method_not_found(&json!("x"), "What?"),
            r#"{"jsonrpc":"2.0","id":"x","error":{"code":-32601,"message":"What?"}}"#
        );
    }

    proptest! {
        #[test]
        fn our_own_requests_are_read_back(id in any::<String>(), method in any::<String>(), text in any::<String>()) {
            let line = encode_rpc_request(&id, &method, &text);
            let expected = RpcMessage::Request { id: json!(id), method, params: json!(text) };
            prop_assert_eq!(parse_rpc_line(line.as_bytes()), Some(expected));
        }

        #[test]
        fn no_line_is_too_odd(line in prop::collection::vec(any::<u8>(), 0..200)) {
            parse_rpc_line(&line);
        }
    }
}
