//! What the owner pastes into the settings of a coding tool, so that it asks the gateway. Pure.

use anyhow::{Result, bail};

use super::client_key::KEY_VARIABLE;
use super::models::{CONTEXT_TOKENS, OUTPUT_TOKENS};
use super::opencode_config::opencode_provider;

/// A tool that is known to work with the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodingClient {
    OpenCode,
    Claude,
    Codex,
    Aider,
    Cline,
    Zed,
    Continue,
}

impl CodingClient {
    pub const ALL: [Self; 7] =
        [Self::OpenCode, Self::Claude, Self::Codex, Self::Aider, Self::Cline, Self::Zed, Self::Continue];

    pub fn name(self) -> &'static str {
        match self {
            Self::OpenCode => "opencode",
            Self::Claude => "claude",
            Self::Codex => "codex",
            Self::Aider => "aider",
            Self::Cline => "cline",
            Self::Zed => "zed",
            Self::Continue => "continue",
        }
    }

    /// # Errors
    /// Names the clients that there are.
    pub fn parse(name: &str) -> Result<Self> {
        match Self::ALL.into_iter().find(|client| client.name().eq_ignore_ascii_case(name)) {
            Some(client) => Ok(client),
            None => bail!("{name:?} is not known; there are {}", Self::ALL.map(Self::name).join(", ")),
        }
    }

    /// Where what is printed belongs.
    pub fn place(self) -> &'static str {
        match self {
            Self::OpenCode => "~/.config/opencode/opencode.json (`--write` puts it there)",
            Self::Claude => "your shell's profile, or type it before you start the tool",
            Self::Aider => {
                "~/.aider.model.settings.yml (the first two lines: Kimi refuses any temperature but its own) and your shell's \
                 profile (the two exports); the last line starts it"
            }
            Self::Codex => "~/.codex/config.toml (the first three lines at its top, before any [table])",
            Self::Cline => "Cline's settings, at API Provider",
            Self::Zed => "Zed's settings.json",
            Self::Continue => "~/.continue/config.yaml",
        }
    }

    /// Where the client looks for its key.
    pub fn key_place(self) -> &'static str {
        match self {
            Self::OpenCode | Self::Claude | Self::Codex | Self::Aider | Self::Continue => KEY_VARIABLE,
            Self::Cline => "the field for it",
            Self::Zed => "NANOKIMI_API_KEY",
        }
    }
}

/// The settings of a client; `base` is the gateway's URL without a path.
pub fn render_client_config(client: CodingClient, base: &str) -> String {
    match client {
        CodingClient::OpenCode => {
            let provider = opencode_provider(base, "    ");
            format!(
                "{{\n  \"$schema\": \"https://opencode.ai/config.json\",\n  \"provider\": {{\n    \"nanokimi\": {provider}\n  }}\n}}"
            )
        }
        CodingClient::Claude => format!(
            "export ANTHROPIC_BASE_URL={base}\n\
             export ANTHROPIC_AUTH_TOKEN=\"${KEY_VARIABLE}\"\n\
             export ANTHROPIC_MODEL=kimi-for-coding\n\
             export ANTHROPIC_DEFAULT_OPUS_MODEL=kimi-for-coding\n\
             export ANTHROPIC_DEFAULT_SONNET_MODEL=kimi-for-coding\n\
             export ANTHROPIC_DEFAULT_HAIKU_MODEL=kimi-for-coding\n\
             export CLAUDE_CODE_MAX_CONTEXT_TOKENS={CONTEXT_TOKENS}"
        ),
        CodingClient::Codex => format!(
            "model = \"kimi-for-coding\"\n\
             model_provider = \"nanokimi\"\n\
             model_context_window = {CONTEXT_TOKENS}\n\
             \n\
             [model_providers.nanokimi]\n\
             name = \"nanokimi\"\n\
             base_url = \"{base}/v1\"\n\
             env_key = \"{KEY_VARIABLE}\"\n\
             wire_api = \"responses\""
        ),
        CodingClient::Aider => format!(
            "- name: openai/kimi-for-coding\n  use_temperature: false\n\
             \n\
             export OPENAI_API_BASE={base}/v1\n\
             export OPENAI_API_KEY=\"${KEY_VARIABLE}\"\n\
             aider --model openai/kimi-for-coding"
        ),
        CodingClient::Cline => format!(
            "API Provider: OpenAI Compatible\n\
             Base URL: {base}/v1\n\
             API Key: the key of this client\n\
             Model ID: kimi-for-coding\n\
             Context Window Size: {CONTEXT_TOKENS}\n\
             Max Output Tokens: {OUTPUT_TOKENS}\n\
             Temperature: 1\n\
             Supports Images: yes"
        ),
        CodingClient::Zed => format!(
            "\"language_models\": {{\n  \"openai_compatible\": {{\n    \"nanokimi\": {{\n      \
             \"api_url\": \"{base}/v1\",\n      \"available_models\": [\n        {{\n          \
             \"name\": \"kimi-for-coding\",\n          \"display_name\": \"Kimi\",\n          \
             \"max_tokens\": {CONTEXT_TOKENS},\n          \"max_output_tokens\": {OUTPUT_TOKENS},\n          \
             \"capabilities\": {{ \"tools\": true, \"images\": true, \"parallel_tool_calls\": false, \
             \"prompt_cache_key\": false, \"interleaved_reasoning\": true }}\n        }}\n      ]\n    }}\n  }}\n}}"
        ),
        CodingClient::Continue => format!(
            "name: nanokimi\nversion: 0.0.1\nschema: v1\nmodels:\n  - name: Kimi\n    provider: moonshot\n    model: kimi-for-coding\n    apiBase: {base}/v1\n    \
             apiKey: ${{{{ secrets.{KEY_VARIABLE} }}}}\n    roles: [chat, edit, apply]\n    \
             capabilities: [tool_use, image_input]\n    defaultCompletionOptions:\n      \
             contextLength: {CONTEXT_TOKENS}\n      maxTokens: {OUTPUT_TOKENS}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_client_is_led_to_the_gateway_and_no_key_is_written_down() {
        for client in CodingClient::ALL {
            let config = render_client_config(client, "http://127.0.0.1:8788");
            assert!(config.contains("http://127.0.0.1:8788"), "{client:?}: {config}");
            assert!(!config.contains("nk-"), "{client:?}");
            assert_eq!(CodingClient::parse(client.name()).unwrap(), client);
        }
        assert!(CodingClient::parse("emacs").unwrap_err().to_string().contains("opencode, claude"));
    }

    #[test]
    fn specification_model_definitions_for_opencode() {
        let config: serde_json::Value =
            serde_json::from_str(&render_client_config(CodingClient::OpenCode, "http://127.0.0.1:8788"))
                .unwrap();
        let models = &config["provider"]["nanokimi"]["models"];
        for (id, name) in [
            ("kimicode-kimi-k2.5", "Kimi Code (K2.5)"),
            ("kimicode-kimi-k2.5-thinking", "Kimi Code (K2.5) Thinking"),
        ] {
            let model = &models[id];
            assert_eq!(model["name"], name);
            assert_eq!(model["limit"], serde_json::json!({ "context": 262_144, "output": 32_000 }));
            assert_eq!(
                model["modalities"],
                serde_json::json!({ "input": ["text", "image"], "output": ["text"] })
            );
        }
        assert_eq!(models.as_object().unwrap().len(), 2);
    }

    /// The real clients show that it helps: `tests/clients`.
    #[test]
    fn clients_send_no_temperature_of_theirs_and_know_what_the_model_reads() {
        for (client, setting) in [
            (
                CodingClient::Aider,
                "- name: openai/kimi-for-coding\n  use_temperature: false\n\nexport OPENAI_API_BASE=",
            ),
            (CodingClient::Cline, "\nTemperature: 1\n"),
            (CodingClient::Claude, "\nexport CLAUDE_CODE_MAX_CONTEXT_TOKENS=262144"),
            (CodingClient::Codex, "\nmodel_context_window = 262144\n"),
            // Kimi refuses a history of calls without the thoughts before them.
            (CodingClient::Zed, "\"interleaved_reasoning\": true"),
            (
                CodingClient::Continue,
                "name: nanokimi\nversion: 0.0.1\nschema: v1\nmodels:\n  - name: Kimi\n    provider: moonshot\n",
            ),
        ] {
            let config = render_client_config(client, "http://127.0.0.1:8788");
            assert!(config.contains(setting), "{client:?}: {config}");
        }
    }

    #[test]
    fn codex_is_told_in_toml() {
        insta::assert_snapshot!(render_client_config(CodingClient::Codex, "http://127.0.0.1:8788"), @r#"
        model = "kimi-for-coding"
        model_provider = "nanokimi"
        model_context_window = 262144

        [model_providers.nanokimi]
        name = "nanokimi"
        base_url = "http://127.0.0.1:8788/v1"
        env_key = "KIMI_GATEWAY_KEY"
        wire_api = "responses"
        "#);
    }
}
