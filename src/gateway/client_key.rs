//! The keys that clients show: `nk-` and 64 hexadecimal digits. Only their hash is kept.

use hyper::header::{self, HeaderMap};
use sha2::{Digest, Sha256};

use crate::store::KeyHash;
use crate::types::Secret;

/// The variable in which the clients find their key.
pub const KEY_VARIABLE: &str = "KIMI_GATEWAY_KEY";

const PREFIX: &str = "nk-";
/// Hexadecimal digits of a key: 256 bits that nobody guesses.
const DIGITS: usize = 64;

/// Makes a key: the key itself, to be shown once, and its hash, to be kept.
pub fn generate_client_key() -> (Secret, KeyHash) {
    let key = format!("{PREFIX}{}", hex::encode(rand::random::<[u8; DIGITS / 2]>()));
    let hash = hash_key(&key);
    (Secret::new(key), hash)
}

/// The hash of the key that a request shows, as `Authorization: Bearer` or as `x-api-key`. A client may send both, one
/// of them for another server: the one that can be ours counts.
pub fn presented_key(headers: &HeaderMap) -> Option<KeyHash> {
    let bearer = headers.get_all(header::AUTHORIZATION).iter().filter_map(|value| {
        let (scheme, key) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    let named = headers.get_all("x-api-key").iter().filter_map(|value| value.to_str().ok());
    bearer.chain(named).find(|key| has_form_of_key(key)).map(hash_key)
}

fn has_form_of_key(text: &str) -> bool {
    text.strip_prefix(PREFIX).is_some_and(|digits| {
        digits.len() == DIGITS && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

fn hash_key(key: &str) -> KeyHash {
    KeyHash::new(hex::encode(Sha256::digest(key.as_bytes())))
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn a_key_is_taken_from_either_header_if_it_can_be_ours() {
        let (key, hash) = generate_client_key();
        let key = key.expose_secret();
        assert_eq!(key.len(), 67);
        for (headers, found) in [
            (vec![("authorization", format!("Bearer {key}"))], true),
            (vec![("authorization", format!("bearer  {key}"))], true),
            (vec![("x-api-key", key.to_owned())], true),
            (vec![("authorization", "Bearer sk-other".to_owned()), ("x-api-key", key.to_owned())], true),
            (vec![("authorization", key.to_owned())], false),
            (vec![("authorization", format!("Basic {key}"))], false),
            (vec![("x-api-key", format!("{key}0"))], false),
            (vec![("x-api-key", key.to_uppercase())], false),
            (vec![("x-api-key", String::new())], false),
            (vec![("cookie", key.to_owned())], false),
            (vec![], false),
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in &headers {
                map.append(*name, HeaderValue::try_from(value).unwrap());
            }
            let presented = presented_key(&map).map(|hash| format!("{hash:?}"));
            assert_eq!(presented, found.then(|| format!("{hash:?}")), "{headers:?}");
        }
        assert_ne!(generate_client_key().0, generate_client_key().0);
    }
}
