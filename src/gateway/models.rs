//! The list of models as clients see it: Kimi's own, with our aliases, in the form of the client's API. Pure.

use serde_json::{Value, json};

use super::rewrite::{ALIASED_MODEL, MODEL_ALIASES, ThinkingMode, resolve_model_alias};
use super::routes::ApiForm;

/// What one request may read and write, in tokens.
pub const CONTEXT_TOKENS: u32 = 262_144;
pub const OUTPUT_TOKENS: u32 = 32_000;

/// The list of a key that may ask for `allowed`; for all models, if that is empty. `None` if what Kimi sent is no list.
pub fn list_models(kimi: &[u8], form: ApiForm, allowed: &[String]) -> Option<Value> {
    let mut list: Value = serde_json::from_slice(kimi).ok()?;
    let models = list.get_mut("data")?.as_array_mut()?;
    let aliased = models.iter().find(|model| model["id"] == ALIASED_MODEL).cloned();
    if let Some(Value::Object(model)) = aliased {
        for (alias, thinking) in MODEL_ALIASES {
            let mut model = model.clone();
            let name = match thinking {
                ThinkingMode::Off => "Kimi Code (K2.5)",
                ThinkingMode::High => "Kimi Code (K2.5) Thinking",
            };
            model.insert("id".to_owned(), alias.into());
            model.insert("display_name".to_owned(), name.into());
            models.push(Value::Object(model));
        }
    }
    models.retain(|model| model["id"].as_str().is_some_and(|id| is_model_allowed(id, allowed)));
    Some(match form {
        ApiForm::OpenAi => list,
        ApiForm::Anthropic => anthropic_list(models),
    })
}

/// Whether a key may ask for a model: by the name that the client uses, or by the one that Kimi knows.
pub fn is_model_allowed(asked: &str, allowed: &[String]) -> bool {
    let (model, _) = resolve_model_alias(asked);
    allowed.is_empty() || allowed.iter().any(|name| name == asked || name == model)
}

fn anthropic_list(models: &[Value]) -> Value {
    let data: Vec<Value> = models
        .iter()
        .map(|model| {
            let created = model["created"].as_i64().and_then(|secs| jiff::Timestamp::from_second(secs).ok());
            json!({
                "type": "model",
                "id": model["id"],
                "display_name": model["display_name"].as_str().or(model["id"].as_str()),
                "created_at": created.unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string(),
            })
        })
        .collect();
    let id = |model: Option<&Value>| model.map_or(Value::Null, |model| model["id"].clone());
    json!({ "first_id": id(data.first()), "last_id": id(data.last()), "has_more": false, "data": data })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIMI: &[u8] = br#"{"object":"list","data":[
        {"id":"kimi-for-coding","object":"model","created":1767225600,"display_name":"Kimi","context_length":262144,
         "supports_image_in":true},
        {"id":"k3","object":"model","context_length":1048576}]}"#;

    fn ids(list: &Value) -> Vec<&str> {
        list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect()
    }

    #[test]
    fn specification_model_definitions_are_in_the_list() {
        let list = list_models(KIMI, ApiForm::OpenAi, &[]).unwrap();
        assert_eq!(
            ids(&list),
            ["kimi-for-coding", "k3", "kimicode-kimi-k2.5", "kimicode-kimi-k2.5-thinking"]
        );
        let alias = &list["data"][3];
        assert_eq!(
            (&alias["context_length"], &alias["supports_image_in"], &alias["display_name"]),
            (&262_144.into(), &true.into(), &"Kimi Code (K2.5) Thinking".into())
        );
        assert_eq!(list["object"], "list");
    }

    #[test]
    fn a_client_of_anthropics_api_gets_its_form() {
        let list = list_models(KIMI, ApiForm::Anthropic, &[]).unwrap();
        assert_eq!(list["data"][0]["created_at"], "2026-01-01T00:00:00Z");
        assert_eq!(
            (&list["data"][1]["display_name"], &list["data"][1]["type"]),
            (&"k3".into(), &"model".into())
        );
        assert_eq!(
            (&list["has_more"], &list["last_id"]),
            (&false.into(), &"kimicode-kimi-k2.5-thinking".into())
        );
    }

    #[test]
    fn a_key_sees_what_it_may_ask_for() {
        for (allowed, expected) in [
            (vec!["k3"], vec!["k3"]),
            (
                vec!["kimi-for-coding"],
                vec!["kimi-for-coding", "kimicode-kimi-k2.5", "kimicode-kimi-k2.5-thinking"],
            ),
            (vec!["kimicode-kimi-k2.5"], vec!["kimicode-kimi-k2.5"]),
            (vec!["none"], vec![]),
        ] {
            let allowed: Vec<String> = allowed.into_iter().map(str::to_owned).collect();
            let list = list_models(KIMI, ApiForm::OpenAi, &allowed).unwrap();
            assert_eq!(ids(&list), expected, "{allowed:?}");
        }
        assert!(is_model_allowed("kimicode-k3", &["k3".to_owned()]));
        assert!(!is_model_allowed("k3", &["kimicode-k3".to_owned()]));
    }

    #[test]
    fn what_is_no_list_is_none() {
        for text in ["", "[]", "{}", r#"{"data":{}}"#, "<html>"] {
            assert_eq!(list_models(text.as_bytes(), ApiForm::OpenAi, &[]), None, "{text}");
        }
    }
}
