//! The tools of a request as functions, and what Kimi calls as the client knows it.
//!
//! | offered as | Kimi's function | called as |
//! |---|---|---|
//! | `function` | the same | `function_call` |
//! | one of those in a `namespace` | `namespace__name` | the same, with its namespace |
//! | `custom`: free text, such as Codex's `apply_patch` | one with the argument `input` | `custom_tool_call` |
//! | `tool_search`, by which Codex finds more tools | `tool_search` | `tool_search_call` |
//!
//! A tool that OpenAI's own servers run, such as `web_search`, is not offered to Kimi: nobody would run it.
//! Codex names some in every request, so they are no reason to refuse it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::errors::ResponsesError;
use super::freeform::FREEFORM_ARGUMENT;

/// The function by which Codex finds tools that it has not told of yet.
pub const TOOL_SEARCH: &str = "tool_search";

/// A tool as the client declares it.
#[derive(Debug, Deserialize)]
pub struct ToolDeclaration<'a> {
    #[serde(rename = "type")]
    kind: String,
    name: Option<String>,
    description: Option<String>,
    #[serde(borrow)]
    parameters: Option<&'a RawValue>,
    format: Option<FreeformFormat>,
    /// Of a namespace.
    tools: Option<Vec<ToolDeclaration<'a>>>,
}

/// What the text of a freeform tool looks like.
#[derive(Debug, Deserialize)]
struct FreeformFormat {
    syntax: Option<String>,
    definition: Option<String>,
}

/// A function as Kimi is told of it.
#[derive(Debug, Serialize)]
pub struct ChatFunction<'a> {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    parameters: FunctionParameters<'a>,
}

/// A JSON schema: the client's own, byte by byte, since the order of its properties means something to a
/// model.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum FunctionParameters<'a> {
    OfClient(&'a RawValue),
    Ours(serde_json::Value),
}

/// What Kimi's name of a function stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedTool {
    pub form: ToolForm,
    pub namespace: Option<String>,
    pub name: String,
}

/// How a tool is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolForm {
    /// With JSON arguments.
    Function,
    /// With one text.
    Freeform,
    /// With JSON arguments, in an item of its own.
    Search,
}

/// The tools that one request offers.
#[derive(Debug, Default)]
pub struct OfferedTools<'a> {
    pub functions: Vec<ChatFunction<'a>>,
    pub names: ToolNames,
}

/// What each of Kimi's function names stands for.
#[derive(Clone, Debug, Default)]
pub struct ToolNames(BTreeMap<String, NamedTool>);

impl<'a> OfferedTools<'a> {
    /// Adds a tool, and all of a namespace. `param` is its place in the request.
    pub fn offer(&mut self, declared: ToolDeclaration<'a>, param: &str) -> Result<(), ResponsesError> {
        self.offer_in_namespace(declared, None, param)
    }

    fn offer_in_namespace(
        &mut self,
        declared: ToolDeclaration<'a>,
        namespace: Option<&str>,
        param: &str,
    ) -> Result<(), ResponsesError> {
        let form = match declared.kind.as_str() {
            "function" => ToolForm::Function,
            "custom" => ToolForm::Freeform,
            "tool_search" => ToolForm::Search,
            "namespace" => {
                let namespace = required_name(declared.name, param)?;
                for (at, tool) in declared.tools.into_iter().flatten().enumerate() {
                    self.offer_in_namespace(tool, Some(&namespace), &format!("{param}.tools[{at}]"))?;
                }
                return Ok(());
            }
            // OpenAI's servers run it.
            _ => return Ok(()),
        };
        let name = match form {
            ToolForm::Search => TOOL_SEARCH.to_owned(),
            ToolForm::Function | ToolForm::Freeform => required_name(declared.name, param)?,
        };
        let function = function_name(namespace, &name);
        let tool = NamedTool { form, namespace: namespace.map(str::to_owned), name };
        match self.names.0.get(&function) {
            // Found by tool_search more than once.
            Some(known) if *known == tool => return Ok(()),
            Some(_) => {
                let message = format!("Two tools would be called {function} for Kimi; rename one of them");
                return Err(ResponsesError::invalid_request(format!("{param}.name"), message));
            }
            None => {}
        }
        self.functions.push(match form {
            ToolForm::Function | ToolForm::Search => ChatFunction {
                name: function.clone(),
                description: declared.description,
                parameters: declared
                    .parameters
                    .map_or_else(FunctionParameters::none, FunctionParameters::OfClient),
            },
            ToolForm::Freeform => ChatFunction {
                name: function.clone(),
                description: Some(freeform_description(declared.description, declared.format)),
                parameters: FunctionParameters::of_freeform(),
            },
        });
        self.names.0.insert(function, tool);
        Ok(())
    }
}

impl ChatFunction<'_> {
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl FunctionParameters<'_> {
    fn none() -> Self {
        Self::Ours(json!({ "type": "object", "properties": {} }))
    }

    fn of_freeform() -> Self {
        Self::Ours(json!({
            "type": "object",
            "properties": {
                FREEFORM_ARGUMENT: { "type": "string", "description": "The whole text for the tool." },
            },
            "required": [FREEFORM_ARGUMENT],
            "additionalProperties": false,
        }))
    }
}

impl ToolNames {
    /// What is meant by a function that Kimi calls. Models make names up; the client says so then.
    pub fn resolve(&self, function: &str) -> NamedTool {
        self.0.get(function).cloned().unwrap_or_else(|| NamedTool {
            form: ToolForm::Function,
            namespace: None,
            name: function.to_owned(),
        })
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contains(&self, function: &str) -> bool {
        self.0.contains_key(function)
    }
}

/// Kimi's name for a tool. Codex calls the namespace of a server's MCP tools `mcp__server`, `mcp__server__` in
/// earlier versions, and that of its own tools in code mode `functions`: to OpenAI's models, those in no namespace.
pub fn function_name(namespace: Option<&str>, name: &str) -> String {
    match namespace {
        Some("functions") => name.to_owned(),
        Some(namespace) if namespace.ends_with("__") || name.starts_with("__") => {
            format!("{namespace}{name}")
        }
        Some(namespace) => format!("{namespace}__{name}"),
        None => name.to_owned(),
    }
}

fn freeform_description(description: Option<String>, format: Option<FreeformFormat>) -> String {
    let mut text = description.unwrap_or_default();
    if !text.is_empty() {
        text.push_str("\n\n");
    }
    // Codex says of its own: "This is a FREEFORM tool, so do not wrap the patch in JSON."
    text.push_str(&format!(
        "Here the tool is a function: its argument `{FREEFORM_ARGUMENT}` takes the whole text, as it is."
    ));
    if let Some(definition) = format.as_ref().and_then(|format| format.definition.as_ref()) {
        let syntax = format.as_ref().and_then(|format| format.syntax.as_deref()).unwrap_or_default();
        let space = if syntax.is_empty() { "" } else { " " };
        text.push_str(&format!(" It must follow this {syntax}{space}grammar:\n{definition}"));
    }
    text
}

fn required_name(name: Option<String>, param: &str) -> Result<String, ResponsesError> {
    name.filter(|name| !name.is_empty())
        .ok_or_else(|| ResponsesError::invalid_request(format!("{param}.name"), "A tool needs a name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(tools: &str) -> Result<OfferedTools<'_>, ResponsesError> {
        let mut offered = OfferedTools::default();
        let declared: Vec<ToolDeclaration> = serde_json::from_str(tools).unwrap();
        for (at, tool) in declared.into_iter().enumerate() {
            offered.offer(tool, &format!("tools[{at}]"))?;
        }
        Ok(offered)
    }

    #[test]
    fn a_function_keeps_the_bytes_of_its_schema() {
        let offered = offer(
            r#"[{"type":"function","name":"shell","description":"Runs.","strict":false,"parameters":{"type":"object", "properties":{"z":{},"a":{}}}}]"#,
        );
        assert_eq!(
            serde_json::to_string(&offered.unwrap().functions).unwrap(),
            r#"[{"name":"shell","description":"Runs.","parameters":{"type":"object", "properties":{"z":{},"a":{}}}}]"#
        );
    }

    #[test]
    fn a_freeform_tool_is_a_function_of_one_text() {
        let offered = offer(
            r#"[{"type":"custom","name":"apply_patch","description":"Edits files.","format":{"type":"grammar","syntax":"lark","definition":"start: begin"}}]"#,
        )
        .unwrap();
        insta::assert_snapshot!(serde_json::to_string_pretty(&offered.functions).unwrap(), @r#"
        [
          {
            "name": "apply_patch",
            "description": "Edits files.\n\nHere the tool is a function: its argument `input` takes the whole text, as it is. It must follow this lark grammar:\nstart: begin",
            "parameters": {
              "type": "object",
              "properties": {
                "input": {
                  "type": "string",
                  "description": "The whole text for the tool."
                }
              },
              "required": [
                "input"
              ],
              "additionalProperties": false
            }
          }
        ]
        "#);
        assert_eq!(offered.names.resolve("apply_patch").form, ToolForm::Freeform);
    }

    #[test]
    fn a_tool_in_a_namespace_is_called_back_by_both_names() {
        let offered = offer(
            r#"[{"type":"namespace","name":"mcp__files","description":"Files.","tools":[{"type":"function","name":"read"}]},
                {"type":"namespace","name":"mcp__old__","tools":[{"type":"function","name":"read"}]},
                {"type":"namespace","name":"agents","tools":[{"type":"function","name":"spawn"},{"type":"custom","name":"tell"}]},
                {"type":"namespace","name":"functions","tools":[{"type":"custom","name":"exec"}]},
                {"type":"tool_search","execution":"client","description":"Finds tools.","parameters":{}}]"#,
        )
        .unwrap();
        let tool = |form, namespace: Option<&str>, name: &str| NamedTool {
            form,
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
        };
        for (function, named) in [
            ("mcp__files__read", tool(ToolForm::Function, Some("mcp__files"), "read")),
            ("mcp__old__read", tool(ToolForm::Function, Some("mcp__old__"), "read")),
            ("agents__spawn", tool(ToolForm::Function, Some("agents"), "spawn")),
            ("agents__tell", tool(ToolForm::Freeform, Some("agents"), "tell")),
            ("exec", tool(ToolForm::Freeform, Some("functions"), "exec")),
            ("tool_search", tool(ToolForm::Search, None, "tool_search")),
            ("made_up", tool(ToolForm::Function, None, "made_up")),
        ] {
            assert_eq!(offered.names.resolve(function), named, "{function}");
        }
        assert_eq!(offered.functions.len(), 6);
    }

    #[test]
    fn what_openai_runs_itself_is_not_offered() {
        let offered = offer(
            r#"[{"type":"web_search","external_web_access":false},{"type":"image_generation","output_format":"png"},
                {"type":"local_shell"},{"type":"mcp","server_label":"x"}]"#,
        )
        .unwrap();
        assert!(offered.functions.is_empty());
    }

    #[test]
    fn two_tools_never_share_a_name() {
        let twice = r#"[{"type":"function","name":"a"},{"type":"function","name":"a"}]"#;
        assert_eq!(offer(twice).unwrap().functions.len(), 1);
        for (tools, param) in [
            (r#"[{"type":"function","name":"a"},{"type":"custom","name":"a"}]"#, "tools[1].name"),
            (
                r#"[{"type":"function","name":"a__b"},{"type":"namespace","name":"a","tools":[{"type":"function","name":"b"}]}]"#,
                "tools[1].tools[0].name",
            ),
            (r#"[{"type":"function"}]"#, "tools[0].name"),
            (r#"[{"type":"namespace","name":"","tools":[]}]"#, "tools[0].name"),
        ] {
            assert_eq!(offer(tools).unwrap_err().param.as_deref(), Some(param), "{tools}");
        }
    }
}
