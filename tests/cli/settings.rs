//! `.env`, the environment and the engine's `config.toml`, with mistakes in them.

use insta::assert_snapshot;
use support::fake_docker::{self, Image};

use crate::world::Home;

const KEY: &str = "sk-canary0123456789";

/// The refusal of a home with this `.env`. It is the same for every verb that reads settings.
fn refusal(env_file: &str) -> String {
    let home = Home::new();
    home.write("nanokimi/.env", env_file);
    let refusal = home.all_refuse(&[
        &["status"],
        &["groups", "list"],
        &["groups", "add", "more"],
        &["run"],
        &["build"],
        &["chat"],
    ]);
    assert!(!refusal.contains("canary"), "{refusal}");
    refusal
}

#[test]
fn a_line_that_is_none_is_named_by_its_number() {
    assert_snapshot!(refusal(&format!("TZ=UTC\nMOONSHOT_API_KEY: {KEY}\n")), @"The settings of HOME/nanokimi cannot be used. Line 2 of .env is not NAME=value; put quotes around a value with spaces");
}

#[test]
fn an_open_quote_is_named_by_its_line() {
    assert_snapshot!(refusal(&format!("MOONSHOT_API_KEY=\"{KEY}\n")), @"The settings of HOME/nanokimi cannot be used. Line 1 of .env is not NAME=value; put quotes around a value with spaces");
}

#[test]
fn a_misspelt_setting_is_named_with_the_right_one() {
    assert_snapshot!(refusal(&format!("MOONSHOT_APIKEY={KEY}\n")), @"The settings of HOME/nanokimi cannot be used. There is no setting MOONSHOT_APIKEY (line 1 of .env); did you mean MOONSHOT_API_KEY?");
}

#[test]
fn a_value_out_of_range_is_named_with_its_range() {
    assert_snapshot!(refusal("MAX_AGENTS=500\n"), @r#"The settings of HOME/nanokimi cannot be used. MAX_AGENTS in .env must be a number from 1 to 100, not "500""#);
}

#[test]
fn a_key_in_the_wrong_place_is_not_shown() {
    assert_snapshot!(refusal(&format!("KIMI_CODE_BASE_URL={KEY}\n")), @"The settings of HOME/nanokimi cannot be used. KIMI_CODE_BASE_URL in .env must be an address that begins with https://");
}

#[test]
fn all_mistakes_are_named_at_once() {
    assert_snapshot!(refusal("TZ=Mars/Olympus\nIDLE_MINUTES=never\n"), @r#"The settings of HOME/nanokimi cannot be used. TZ in .env must be a time zone such as America/New_York, not "Mars/Olympus". IDLE_MINUTES in .env must be a number from 1 to 1440, not "never""#);
}

#[test]
fn a_misspelt_variable_is_named_with_the_right_one() {
    let home = Home::new().set("NANOKIMI_HOMES", "/srv/kai");
    assert_snapshot!(home.refuses(&["status"]), @"The settings of HOME/nanokimi cannot be used. There is no setting NANOKIMI_HOMES (the environment); did you mean NANOKIMI_HOME?");
    let home = Home::new().set("NANOKIMI_ASSISTANT_NAME", "Ana");
    assert_snapshot!(home.refuses(&["run"]), @"The settings of HOME/nanokimi cannot be used. There is no setting NANOKIMI_ASSISTANT_NAME (the environment); did you mean ASSISTANT_NAME?");
}

#[test]
fn an_env_file_that_is_a_folder_is_named() {
    let home = Home::new();
    std::fs::create_dir(home.path("nanokimi/.env")).unwrap();
    assert_snapshot!(home.refuses(&["status"]), @"The settings of HOME/nanokimi cannot be used. Failed to read HOME/nanokimi/.env: that is a folder, not a file; move it away");
}

#[test]
fn an_env_file_that_is_a_pipe_a_device_or_no_text_is_named() {
    let home = Home::new();
    let path = home.path("nanokimi/.env");
    let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    assert_snapshot!(home.run(&["status"]).refusal(), @"The settings of HOME/nanokimi cannot be used. HOME/nanokimi/.env is no plain file; move it away");
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
    assert_snapshot!(home.run(&["status"]).refusal(), @"The settings of HOME/nanokimi cannot be used. HOME/nanokimi/.env is no plain file; move it away");
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, b"\xff\xfeT\0Z\0").unwrap();
    assert_snapshot!(home.run(&["status"]).refusal(), @"The settings of HOME/nanokimi cannot be used. HOME/nanokimi/.env is not plain text; save it as UTF-8");
    std::fs::write(&path, vec![b'#'; 2 * 1024 * 1024]).unwrap();
    assert_snapshot!(home.run(&["status"]).refusal(), @"The settings of HOME/nanokimi cannot be used. HOME/nanokimi/.env is far too large for settings; move it away");
}

#[test]
fn a_home_that_is_no_path_from_the_root_is_named() {
    let home = Home::new().set("HOME", "home/kai");
    assert_snapshot!(home.refuses(&["status"]), @r#"Failed to find an install: HOME is "home/kai", which is no path from the root; set it right, or use --home FOLDER"#);
    let home = Home::new().set("HOME", "");
    assert_snapshot!(home.refuses(&["status"]), @"Failed to find an install: HOME is not set; use --home FOLDER");
}

#[test]
fn a_tilde_means_the_persons_folder() {
    for (name, value) in [("NANOKIMI_HOME", "~/nanokimi"), ("XDG_RUNTIME_DIR", "")] {
        let home = Home::new().set(name, value);
        let said = home.run(&["status"]).done();
        assert!(said.stdout.contains("HOME/nanokimi"), "{}", said.stdout);
    }
}

#[test]
fn a_config_toml_that_is_none_is_named_by_its_line() {
    let home = Home::new();
    home.write("nanokimi/data/credentials/config.toml", &format!("default_model = \napi_key = \"{KEY}\"\n"));
    fake_docker::start(&home.path("run/docker.sock"), Image::Built);
    let refusal = home.all_refuse(&[&["run"], &["chat"], &["chat", "--say", "hello"]]);
    assert!(!refusal.contains("canary"), "{refusal}");
    assert_snapshot!(refusal, @"Failed to understand HOME/nanokimi/data/credentials/config.toml: Line 1: string values must be quoted, expected literal string. Mend it, or remove it to get a new one");
}

#[test]
fn a_config_toml_with_a_key_in_it_is_refused_without_showing_the_key() {
    let home = Home::new();
    home.write("nanokimi/data/credentials/config.toml", &format!("[services.search]\napi_key = \"{KEY}\"\n"));
    fake_docker::start(&home.path("run/docker.sock"), Image::Built);
    let refusal = home.refuses(&["run"]);
    assert!(!refusal.contains("canary"), "{refusal}");
    assert_snapshot!(refusal, @"Failed to understand HOME/nanokimi/data/credentials/config.toml: services.search.api_key holds a secret, and every container reads this file; remove it, and put an API key into .env as MOONSHOT_API_KEY. Mend it, or remove it to get a new one");
}
