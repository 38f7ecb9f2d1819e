//! The recipes as the binary carries them, one per engine, their hashes, and the archives that Docker builds
//! from.

use std::path::Path;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::types::Engine;

/// The Dockerfile's name in the archive.
pub const RECIPE: &str = "Dockerfile";

/// What all images have in common, and the line in it that the engine's own part replaces.
const WORLD: &str = include_str!("../../../container/Dockerfile");
const PLACE_OF_ENGINE: &str = "#:engine\n";

const AGENT_RUNNER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/agent-runner"));

/// An engine's own part of its image: its part of the Dockerfile, and the files that this copies.
struct EngineRecipe {
    dockerfile: &'static str,
    files: &'static [(&'static str, &'static [u8])],
}

fn engine_recipe(engine: Engine) -> EngineRecipe {
    match engine {
        Engine::KimiCli => EngineRecipe {
            dockerfile: include_str!("../../../container/kimi-cli.Dockerfile"),
            files: &[("requirements.txt", include_bytes!("../../../container/requirements.txt"))],
        },
        Engine::KimiCode => EngineRecipe {
            dockerfile: include_str!("../../../container/kimi-code.Dockerfile"),
            files: &[
                ("node.txt", include_bytes!("../../../container/kimi-code/node.txt")),
                ("package.json", include_bytes!("../../../container/kimi-code/package.json")),
                ("package-lock.json", include_bytes!("../../../container/kimi-code/package-lock.json")),
                ("lighten.mjs", include_bytes!("../../../container/kimi-code/lighten.mjs")),
                ("precompile.mjs", include_bytes!("../../../container/kimi-code/precompile.mjs")),
            ],
        },
    }
}

/// The host's certificates. The file is empty if the host has no certificates of its own.
const HOST_CA: &str = "host-ca.crt";

/// Everything of an engine's image but the host's certificates: name, content, mode.
fn build_context_files(engine: Engine) -> Vec<(&'static str, Vec<u8>, u32)> {
    let recipe = engine_recipe(engine);
    let dockerfile = WORLD.replace(PLACE_OF_ENGINE, recipe.dockerfile);
    let mut files = vec![(RECIPE, dockerfile.into_bytes(), 0o644)];
    files.extend(recipe.files.iter().map(|(name, content)| (*name, content.to_vec(), 0o644)));
    files.push(("agent-runner", AGENT_RUNNER.to_vec(), 0o755));
    files
}

/// SHA-256 over names and contents, in hex.
pub fn recipe_hash(engine: Engine) -> String {
    let files = build_context_files(engine);
    hash_parts(files.iter().flat_map(|(name, content, _)| [name.as_bytes(), content.as_slice()]))
}

/// SHA-256 in hex over parts, each preceded by its length so that no two lists are taken for each other.
pub fn hash_parts<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    hex::encode(hash.finalize())
}

/// The archive, in tar. The same input gives the same bytes, so that Docker's layer cache holds.
///
/// # Errors
/// The host's certificates cannot be read.
pub async fn pack_build_context(engine: Engine, ca_bundle: Option<&Path>) -> Result<Vec<u8>> {
    let host_ca = match ca_bundle {
        Some(path) => tokio::fs::read(path).await.with_context(|| {
            format!("Failed to read the certificates in {} (SSL_CERT_FILE)", path.display())
        })?,
        None => Vec::new(),
    };
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content, mode) in build_context_files(engine).into_iter().chain([(HOST_CA, host_ca, 0o644)]) {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        header.set_mtime(0);
        archive
            .append_data(&mut header, name, content.as_slice())
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
        let engine = Engine::KimiCli;
        let plain = names_and_modes(&pack_build_context(engine, None).await.unwrap());
        let names: Vec<_> = plain.iter().map(|(name, mode, _)| (name.as_str(), *mode)).collect();
        let expected =
            [(RECIPE, 0o644), ("requirements.txt", 0o644), ("agent-runner", 0o755), (HOST_CA, 0o644)];
        assert_eq!(names, expected);
        assert_eq!(plain[3].2, 0, "no certificates of its own");

        let folder = tempfile::tempdir().unwrap();
        let bundle = folder.path().join("ca.pem");
        std::fs::write(&bundle, "PEM").unwrap();
        assert_eq!(names_and_modes(&pack_build_context(engine, Some(&bundle)).await.unwrap())[3].2, 3);

        let missing =
            pack_build_context(engine, Some(&folder.path().join("none.pem"))).await.unwrap_err().to_string();
        assert!(missing.contains("none.pem (SSL_CERT_FILE)"), "{missing}");
    }

    #[tokio::test]
    async fn the_same_recipe_packs_to_the_same_bytes() {
        let engine = Engine::KimiCode;
        assert_eq!(
            pack_build_context(engine, None).await.unwrap(),
            pack_build_context(engine, None).await.unwrap()
        );
        assert_ne!(hash_parts([b"ab".as_slice(), b"c"]), hash_parts([b"a".as_slice(), b"bc"]));
    }

    #[test]
    fn every_engine_has_a_recipe_of_its_own_around_the_same_world() {
        let mut hashes = std::collections::BTreeSet::new();
        for engine in Engine::ALL {
            let recipe = String::from_utf8(build_context_files(engine)[0].1.clone()).unwrap();
            assert!(
                recipe.contains(engine_recipe(engine).dockerfile) && !recipe.contains("#:engine\n"),
                "{recipe}"
            );
            assert!(recipe.ends_with("ENTRYPOINT [\"/usr/local/bin/agent-runner\"]\n"), "{recipe}");
            hashes.insert(recipe_hash(engine));
        }
        assert_eq!(hashes.len(), Engine::ALL.len());
    }
}
