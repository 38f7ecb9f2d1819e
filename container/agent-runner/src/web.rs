//! How the engine and its tools find the web: everything goes to the door, which decides.
//!
//! The proxy's variables are set whatever the group may reach: a refusal in words beats a name that is not found.

use toml::{Table, Value};

use crate::{Code, Fault};

/// The engine's tools that Kimi itself serves, by their names in `config.toml`, and where in the Kimi API.
const SERVICES: [(&str, &str); 2] = [("moonshot_search", "search"), ("moonshot_fetch", "fetch")];

/// Whether Kimi searches and fetches for the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Services {
    Kimi,
    None,
}

/// The variables by which programs find a proxy, in both spellings, as each knows only one or the other. Node reads
/// them only when it is told to.
pub fn variables(port: u16) -> [(&'static str, String); 7] {
    let proxy = format!("http://127.0.0.1:{port}");
    let direct = "127.0.0.1,localhost".to_owned();
    [
        ("http_proxy", proxy.clone()),
        ("HTTP_PROXY", proxy.clone()),
        ("https_proxy", proxy.clone()),
        ("HTTPS_PROXY", proxy),
        ("no_proxy", direct.clone()),
        ("NO_PROXY", direct),
        ("NODE_USE_ENV_PROXY", "1".to_owned()),
    ]
}

/// `config.toml` with Kimi's search and fetch going the way of the model, or without them. The engine asks them only with a key, which the door replaces.
///
/// # Errors
/// [`Code::Settings`] where it is not TOML.
pub fn with_services(config: &str, port: u16, services: Services) -> Result<String, Fault> {
    let broken = |error: &dyn std::fmt::Display| Fault::new(Code::Settings, format!("config.toml: {error}"));
    let mut config: Table = config.parse().map_err(|error| broken(&error))?;
    let mut table = match config.remove("services") {
        None => Table::new(),
        Some(Value::Table(table)) => table,
        Some(_) => return Err(broken(&"services is not a table")),
    };
    for (name, path) in SERVICES {
        table.remove(name);
        if services == Services::Kimi {
            let mut service = Table::new();
            service.insert("base_url".into(), format!("http://127.0.0.1:{port}/coding/v1/{path}").into());
            service.insert("api_key".into(), "replaced at the door".into());
            table.insert(name.into(), service.into());
        }
    }
    if !table.is_empty() {
        config.insert("services".into(), table.into());
    }
    toml::to_string(&config).map_err(|error| broken(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_and_fetch_go_the_way_of_the_model() {
        let given = "default_yolo = true\n[services.moonshot_search]\nbase_url = \"https://api.kimi.com/coding/v1/search\"\n\
                     api_key = \"\"\n[services.moonshot_search.oauth]\nstorage = \"file\"\nkey = \"k\"\n";
        assert_eq!(
            with_services(given, 8787, Services::Kimi).unwrap(),
            "default_yolo = true\n\n\
             [services.moonshot_fetch]\napi_key = \"replaced at the door\"\n\
             base_url = \"http://127.0.0.1:8787/coding/v1/fetch\"\n\n\
             [services.moonshot_search]\napi_key = \"replaced at the door\"\n\
             base_url = \"http://127.0.0.1:8787/coding/v1/search\"\n"
        );
        assert_eq!(with_services(given, 8787, Services::None).unwrap(), "default_yolo = true\n");
    }

    #[test]
    fn a_configuration_that_is_none_is_told() {
        for broken in ["default_yolo =", "services = 1"] {
            let fault = with_services(broken, 8787, Services::Kimi).unwrap_err();
            assert!(
                fault.code == Code::Settings && fault.to_string().starts_with("config.toml: "),
                "{fault}"
            );
        }
    }
}
