//! kimi-code's system prompt: our part, and behind a mark the part that the engine fills in itself.

use crate::home::ContainerHome;
use crate::prompt::{self, SYSTEM};

/// The names that kimi-code fills in when it meets them in a system prompt.
const NAMES: [&str; 18] = [
    "base_prompt",
    "role_additional",
    "product_name",
    "reply_style_guide",
    "notify_user_guidance",
    "os",
    "windows_notes",
    "shell",
    "cwd",
    "cwd_listing",
    "agents_md",
    "additional_dirs_info",
    "additional_dirs_section",
    "skills",
    "skills_section",
    "plugin_sections",
    "now",
    "date",
];

/// Begins the part of the system prompt that kimi-code itself fills in.
pub const ITS_OWN_PART: &str = "<!-- What follows is the engine's own. -->";

/// Our frame, filled in, and behind it what kimi-code knows better: AGENTS.md and skills. `left_out` are the
/// skills that are not offered.
pub fn render_system_prompt(home: &ContainerHome, assistant: &str, left_out: &str) -> String {
    let (global, group) = (
        prompt::read_prompt_file(&home.global.join("KIMI.md")),
        prompt::read_prompt_file(&home.workspace.join("KIMI.md")),
    );
    let frame = SYSTEM.split("\n{% if KIMI_AGENTS_MD %}").next().unwrap_or(SYSTEM);
    let ours = prompt::fill_template(
        &format!("{frame}\n"),
        &[
            ("ASSISTANT", assistant),
            ("KIMI_WORK_DIR", &home.workspace.to_string_lossy()),
            ("GLOBAL_PROMPT", &global),
            ("GROUP_PROMPT", &group),
            ("SKILLS_LEFT_OUT", left_out),
        ],
    );
    let ours =
        NAMES.iter().fold(ours, |text, name| text.replace(&format!("${{{name}}}"), &format!("$ {{{name}}}")));
    format!("{}\n\n{ITS_OWN_PART}\n\n${{agents_md}}${{skills_section}}\n", ours.trim_end())
}

/// The part of a system prompt that is ours.
pub fn host_prompt_part(prompt: &str) -> &str {
    prompt.split(ITS_OWN_PART).next().unwrap_or(prompt)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_system_prompt_is_ours_then_the_engines() {
        let root = tempfile::tempdir().unwrap();
        let home = crate::home::tests::home_in(root.path());
        fs::write(home.workspace.join("KIMI.md"), "We speak ${cwd} and ${x} {% if A %}").unwrap();
        let prompt = render_system_prompt(&home, "Kai", "- \"a\": no\n");
        assert!(prompt.starts_with("You are Kai, and you live in a chat."), "{prompt}");
        assert!(prompt.contains("# For this chat\n\nWe speak $ {cwd} and ${x} {% if A %}\n"), "{prompt}");
        assert!(prompt.contains("# Skills that are left out\n\n- \"a\": no\n"), "{prompt}");
        assert!(!prompt.contains("# For all chats") && !prompt.contains("ROLE_ADDITIONAL"), "{prompt}");
        assert!(
            prompt.ends_with(&format!("{ITS_OWN_PART}\n\n${{agents_md}}${{skills_section}}\n")),
            "{prompt}"
        );
        assert!(!host_prompt_part(&prompt).contains("${agents_md}"));
    }
}
