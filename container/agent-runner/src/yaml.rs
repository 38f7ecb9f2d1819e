//! Words that every YAML parser reads alike.

/// A text as a scalar in quotes.
pub fn quote_for_yaml(text: &str) -> String {
    escape_for_yaml(&serde_json::Value::from(text).to_string())
}

/// JSON allows characters that YAML refuses (DEL, C1 controls, noncharacters) or takes for line breaks (NEL,
/// LS, PS); JSON has them in strings only, and in strings both languages read `\uXXXX`.
pub fn escape_for_yaml(json: &str) -> String {
    let mut yaml = String::with_capacity(json.len());
    for char in json.chars() {
        match char {
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                yaml.push_str(&format!("\\u{:04x}", u32::from(char)));
            }
            _ => yaml.push(char),
        }
    }
    yaml
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_yaml_refuses_are_escaped() {
        let quoted = quote_for_yaml("a\u{7f}b\u{85}c\u{2028}d\u{feff}e\u{ffff}f\tg\u{1}\"é👪");
        assert_eq!(quoted, r#""a\u007fb\u0085c\u2028d\ufeffe\uffff"#.to_owned() + r#"f\tg\u0001\"é👪""#);
        let read: String = serde_json::from_str(&quoted).unwrap();
        assert_eq!(read, "a\u{7f}b\u{85}c\u{2028}d\u{feff}e\u{ffff}f\tg\u{1}\"é👪");
    }
}
