//! The recipe as the binary carries it, its hash, and the archive that Docker builds from.

use std::path::Path;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// The Dockerfile's name in the archive.
pub const RECIPE: &str = "Dockerfile";

/// What is always in the archive: name, content, mode.
const FILES: [(&str, &[u8], u32); 3] = [
    (RECIPE, include_bytes!("../../../container/Dockerfile"), 0o644),
    ("requirements.txt", include_bytes!("../../../container/requirements.txt"), 0o644),
    ("agent-runner", include_bytes!(concat!(env!("OUT_DIR"), "/agent-runner")), 0o755),
];
/// The host's certificates; empty where it has none of its own.
const HOST_CA: &str = "host-ca.crt";

/// SHA-256 over names and contents, in hex.
pub fn recipe_hash() -> String {
    hash(FILES.iter().flat_map(|(name, content, _)| [name.as_bytes(), content]))
}

/// SHA-256 in hex over parts, each preceded by its length so that no two lists are taken for each other.
pub fn hash<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    format!("{:x}", hash.finalize())
}

/// The archive, in tar. The same input gives the same bytes, so that Docker's layer cache holds.
///
/// # Errors
/// When the host's certificates cannot be read.
pub async fn archive(ca_bundle: Option<&Path>) -> Result<Vec<u8>> {
    let host_ca = match ca_bundle {
        Some(path) => tokio::fs::read(path).await.with_context(|| {
            format!("Failed to read the certificates in {} (SSL_CERT_FILE)", path.display())
        })?,
        None => Vec::new(),
    };
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content, mode) in FILES.into_iter().chain([(HOST_CA, host_ca.as_slice(), 0o644)]) {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        header.set_mtime(0);
        archive
            .append_data(&mut header, name, content)
            .context("Failed to pack the recipe of the agent image")?;
    }
    archive.into_inner().context("Failed to pack the recipe of the agent image")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names_and_modes(archive: &[u8]) -> Vec<(String, u32, u64)> {
        let mut archive = tar::Archive::new(archive);
        let entries = archive.entries().unwrap().map(Result::unwrap);
        entries
            .map(|entry| {
                let header = entry.header();
                let name = entry.path().unwrap().display().to_string();
                (name, header.mode().unwrap(), header.size().unwrap())
            })
            .collect()
    }

    #[tokio::test]
    async fn the_archive_holds_the_recipe_and_the_hosts_certificates() {
        let plain = names_and_modes(&archive(None).await.unwrap());
        let names: Vec<_> = plain.iter().map(|(name, mode, _)| (name.as_str(), *mode)).collect();
        let expected =
            [(RECIPE, 0o644), ("requirements.txt", 0o644), ("agent-runner", 0o755), (HOST_CA, 0o644)];
        assert_eq!(names, expected);
        assert_eq!(plain[3].2, 0, "no certificates of its own");

        let folder = tempfile::tempdir().unwrap();
        let bundle = folder.path().join("ca.pem");
        std::fs::write(&bundle, "PEM").unwrap();
        assert_eq!(names_and_modes(&archive(Some(&bundle)).await.unwrap())[3].2, 3);

        let missing = archive(Some(&folder.path().join("none.pem"))).await.unwrap_err().to_string();
        assert!(missing.contains("none.pem (SSL_CERT_FILE)"), "{missing}");
    }

    #[tokio::test]
    async fn the_same_recipe_packs_to_the_same_bytes() {
        assert_eq!(archive(None).await.unwrap(), archive(None).await.unwrap());
        assert_ne!(hash([b"ab".as_slice(), b"c"]), hash([b"a".as_slice(), b"bc"]));
    }
}
