//! What a container gets in place of the login: a `kimi-code.json` in kimi-cli's format with a key that means
//! nothing and that kimi-cli never tries to refresh, and the device id that all containers of an install
//! share.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::private_file;
use crate::types::Secret;

/// kimi-cli looks for its login under this name.
const FILE_NAME: &str = "kimi-code.json";
/// 2100-01-01 in Unix seconds: the stand-in never expires.
const NEVER: f64 = 4_102_444_800.0;

/// The stand-in's JSON. `key` is opaque and worth nothing outside. An empty refresh token keeps kimi-cli from
/// refreshing (measured with 1.51.0).
pub fn render_stand_in(key: &Secret) -> String {
    json!({
        "access_token": key.expose_secret(),
        "refresh_token": "",
        "expires_at": NEVER,
        "scope": "kimi-code",
        "token_type": "Bearer",
        "expires_in": 0.0,
    })
    .to_string()
}

/// Puts a stand-in with a new random key into a container's credentials folder, over whatever file or link is
/// there. The folder must be a new one: an agent can write there, and may have made something that cannot be
/// removed.
pub fn write_stand_in(folder: &Path) -> Result<()> {
    private_file::write_private_file(
        &folder.join(FILE_NAME),
        &render_stand_in(&Secret::new(hex::encode(rand::random::<[u8; 32]>()))),
    )
}

/// kimi-cli's device id: the 32 hex digits of a random UUID, made if the file is missing.
///
/// # Errors
/// The file cannot be read or written, or holds something else.
pub fn load_or_create_device_id(path: &Path) -> Result<String> {
    let id = match fs::read_to_string(path) {
        Ok(text) => text.trim().to_owned(),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let id = uuid::Builder::from_random_bytes(rand::random()).into_uuid().simple().to_string();
            private_file::write_private_file(path, &id)?;
            id
        }
        Err(error) => return Err(error).with_context(|| format!("Failed to read {}", path.display())),
    };
    if !is_device_id(&id) {
        bail!("{} does not hold a device id; delete it, and a new one is made", path.display());
    }
    Ok(id)
}

/// Whether a text is a device's id: a UUID in lower case, with its dashes or without.
pub fn is_device_id(text: &str) -> bool {
    let digits: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = digits.iter().map(|part| part.len()).collect();
    let is_hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-'));
    is_hex && (lengths == [32] || lengths == [8, 4, 4, 4, 12])
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use serde_json::Value;
    use tempfile::TempDir;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    fn names(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn the_stand_in_is_a_login_that_never_expires_and_is_never_refreshed() {
        insta::assert_snapshot!(
            render_stand_in(&Secret::new("k")),
            @r#"{"access_token":"k","refresh_token":"","expires_at":4102444800.0,"scope":"kimi-code","token_type":"Bearer","expires_in":0.0}"#
        );
    }

    #[test]
    fn every_stand_in_has_its_own_key_and_replaces_whatever_is_there() {
        let root = TempDir::new().unwrap();
        let folder = root.path().join("agents/family/credentials");
        let file = folder.join(FILE_NAME);
        let key = || {
            let login: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
            login["access_token"].as_str().unwrap().to_owned()
        };
        fs::create_dir_all(&folder).unwrap();
        write_stand_in(&folder).unwrap();
        let first = key();
        assert!(first.len() == 64 && first.chars().all(|c| c.is_ascii_hexdigit()), "{first}");
        assert_eq!(mode(&file), 0o600);

        // A container writes into this folder; a link that it left there must lead nowhere.
        let precious = root.path().join("precious");
        fs::write(&precious, "mine").unwrap();
        fs::remove_file(&file).unwrap();
        symlink(&precious, &file).unwrap();
        write_stand_in(&folder).unwrap();
        assert_eq!(fs::read_to_string(&precious).unwrap(), "mine");
        assert!(fs::symlink_metadata(&file).unwrap().is_file());
        assert_ne!(key(), first);
        assert_eq!(names(&folder), [FILE_NAME], "no temporary files stay");
    }

    #[test]
    fn the_device_id_is_made_once() {
        let root = TempDir::new().unwrap();
        let path = root.path().join("device_id");
        let id = load_or_create_device_id(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!((id.len(), id.as_bytes()[12]), (32, b'4'), "{id}");
        assert_eq!(load_or_create_device_id(&path).unwrap(), id);
        fs::write(&path, format!("{id}\n")).unwrap();
        assert_eq!(load_or_create_device_id(&path).unwrap(), id);
        for text in
            ["", "short", &id.to_uppercase().replace(|c: char| c.is_ascii_digit(), "A"), &format!("{id}0")]
        {
            fs::write(&path, text).unwrap();
            let error = load_or_create_device_id(&path).unwrap_err().to_string();
            assert!(
                error.ends_with("does not hold a device id; delete it, and a new one is made"),
                "{text}: {error}"
            );
        }
        assert!(load_or_create_device_id(&root.path().join("nowhere/device_id")).is_err());
    }
}
