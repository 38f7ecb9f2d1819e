//! How the engine and its tools find the web: everything goes to the egress proxy, which decides.
//!
//! The proxy's variables are set whatever the group may reach: a refusal in words is better than a name that
//! is not found.

use toml::{Table, Value};

/// The engine's tools that Kimi itself serves, by their names in `config.toml`, and their paths in the Kimi
/// API.
const SERVICES: [(&str, &str); 2] = [("moonshot_search", "search"), ("moonshot_fetch", "fetch")];

/// Whether Kimi searches and fetches for the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchServices {
    Kimi,
    None,
}

/// The variables by which programs find a proxy, in both spellings, as most know only one of them. Node reads
/// them only if another variable says so.
pub fn proxy_variables(port: u16) -> [(&'static str, String); 7] {
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

/// Makes Kimi's search and fetch go the way of the model, or takes them away. The engine asks them only with
/// a key, which the egress proxy replaces.
pub fn set_search_services(config: &mut Table, port: u16, services: SearchServices) {
    let mut table = match config.remove("services") {
        Some(Value::Table(table)) => table,
        // Anything else would mean nothing to an engine.
        Some(_) | None => Table::new(),
    };
    for (name, path) in SERVICES {
        table.remove(name);
        if services == SearchServices::Kimi {
            let mut service = Table::new();
            service.insert("base_url".into(), format!("http://127.0.0.1:{port}/coding/v1/{path}").into());
            service.insert("api_key".into(), "replaced at the door".into());
            table.insert(name.into(), service.into());
        }
    }
    if !table.is_empty() {
        config.insert("services".into(), table.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(given: &str, services: SearchServices) -> String {
        let mut config: Table = given.parse().unwrap();
        set_search_services(&mut config, 8787, services);
        config.to_string()
    }

    #[test]
    fn search_and_fetch_go_the_way_of_the_model() {
        let given = "default_yolo = true\n[services.moonshot_search]\nbase_url = \"https://api.kimi.com/coding/v1/search\"\n\
                     api_key = \"\"\n[services.moonshot_search.oauth]\nstorage = \"file\"\nkey = \"k\"\n";
        assert_eq!(
            set(given, SearchServices::Kimi),
            "default_yolo = true\n\n\
             [services.moonshot_fetch]\napi_key = \"replaced at the door\"\n\
             base_url = \"http://127.0.0.1:8787/coding/v1/fetch\"\n\n\
             [services.moonshot_search]\napi_key = \"replaced at the door\"\n\
             base_url = \"http://127.0.0.1:8787/coding/v1/search\"\n"
        );
        assert_eq!(set(given, SearchServices::None), "default_yolo = true\n");
    }

    #[test]
    fn services_that_are_none_become_some() {
        assert_eq!(set("services = 1", SearchServices::None), "");
        assert!(set("services = 1", SearchServices::Kimi).contains("[services.moonshot_fetch]"));
    }
}
