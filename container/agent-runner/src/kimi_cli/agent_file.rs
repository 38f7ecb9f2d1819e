//! The agent file: who the engine is in this chat, made of our system prompt and the two KIMI.md.
//!
//! The KIMI.md are arguments of the template, never a part of it: whatever they hold (`${x}`, `{% … %}`) is
//! text.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::RunnerError;
use crate::home::{self, ContainerHome};
use crate::prompt::{self, SYSTEM};
use crate::yaml::escape_for_yaml;

/// Writes the agent file and says where it lies. `left_out` are the skills that are not offered.
pub fn write_agent_file(
    home: &ContainerHome,
    assistant: &str,
    left_out: &str,
) -> Result<PathBuf, RunnerError> {
    let global = prompt::read_prompt_file(&home.global.join("KIMI.md"));
    let group = prompt::read_prompt_file(&home.workspace.join("KIMI.md"));
    let arguments = json!({
        "ASSISTANT": assistant,
        "GLOBAL_PROMPT": global,
        "GROUP_PROMPT": group,
        "SKILLS_LEFT_OUT": left_out,
    });
    home::write_home_file(&home.prepared.join("system.md"), SYSTEM.as_bytes())?;
    let file = home.prepared.join("agent.yaml");
    home::write_home_file(&file, render_agent_file(&arguments).as_bytes())?;
    Ok(file)
}

/// JSON that is also YAML. Nobody answers the questions of `AskUserQuestion` and plan mode in a chat, so
/// those tools are left out.
fn render_agent_file(arguments: &Value) -> String {
    let json = json!({"version": 1, "agent": {
        "extend": "default",
        "name": "assistant",
        "system_prompt_path": "./system.md",
        "system_prompt_args": arguments,
        "exclude_tools": [
            "kimi_cli.tools.ask_user:AskUserQuestion",
            "kimi_cli.tools.plan:ExitPlanMode",
            "kimi_cli.tools.plan.enter:EnterPlanMode",
        ],
    }});
    escape_for_yaml(&json.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::tests::home_in;
    use std::fs;

    fn written(home: &ContainerHome) -> Value {
        serde_json::from_slice(&fs::read(write_agent_file(home, "Kai", "- a skill").unwrap()).unwrap())
            .unwrap()
    }

    #[test]
    fn both_kimi_md_are_arguments_of_the_template() {
        let root = tempfile::tempdir().unwrap();
        let home = home_in(root.path());
        fs::write(home.global.join("KIMI.md"), "Be kind. ${x} {% endraw %} {{ y }}").unwrap();
        fs::write(home.workspace.join("KIMI.md"), "We are the García family 👪.\n\"quoted\"\\").unwrap();
        let agent = &written(&home)["agent"];
        assert_eq!(agent["extend"], "default");
        assert_eq!(agent["system_prompt_args"]["ASSISTANT"], "Kai");
        assert_eq!(agent["system_prompt_args"]["SKILLS_LEFT_OUT"], "- a skill");
        assert_eq!(agent["system_prompt_args"]["GLOBAL_PROMPT"], "Be kind. ${x} {% endraw %} {{ y }}");
        assert_eq!(agent["system_prompt_args"]["GROUP_PROMPT"], "We are the García family 👪.\n\"quoted\"\\");
        assert_eq!(agent["exclude_tools"].as_array().unwrap().len(), 3);
        assert_eq!(fs::read_to_string(home.prepared.join("system.md")).unwrap(), SYSTEM);
    }

    #[test]
    fn a_missing_empty_or_strange_kimi_md_is_an_empty_one() {
        let root = tempfile::tempdir().unwrap();
        let home = home_in(root.path());
        fs::create_dir(home.global.join("KIMI.md")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, home.workspace.join("KIMI.md"), 0o600.into()).unwrap();
        let args = &written(&home)["agent"]["system_prompt_args"];
        assert_eq!((&args["GLOBAL_PROMPT"], &args["GROUP_PROMPT"]), (&"".into(), &"".into()));
    }

    #[test]
    fn a_kimi_md_that_cannot_be_read_is_an_empty_one() {
        let root = tempfile::tempdir().unwrap();
        let home = home_in(root.path());
        std::os::unix::fs::symlink("KIMI.md", home.global.join("KIMI.md")).unwrap();
        std::os::unix::fs::symlink("KIMI.md", home.workspace.join("KIMI.md")).unwrap();
        let args = &written(&home)["agent"]["system_prompt_args"];
        assert_eq!((&args["GLOBAL_PROMPT"], &args["GROUP_PROMPT"]), (&"".into(), &"".into()));
    }
}
