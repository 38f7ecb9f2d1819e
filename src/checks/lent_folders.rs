//! The folders that the owner lends to groups: whether their agents would be given them now.

use super::Finding;
use crate::folders::{self, AllowlistPlace, FolderDecision};
use crate::paths::Paths;
use crate::store::Store;
use crate::types::Group;

/// Looks at the lent folders of all groups. A database that is missing or cannot be read is another finding.
pub async fn check_lent_folders(paths: &Paths, allowlist: Option<&AllowlistPlace>) -> Vec<Finding> {
    let Ok(Some(store)) = Store::open_for_reading(&paths.database_file()) else { return Vec::new() };
    let Ok(groups) = store.all_groups().await else { return Vec::new() };
    let decisions = groups.iter().flat_map(|group| {
        let decisions = folders::decide_extra_folders(paths, allowlist, group, &groups);
        decisions.into_iter().map(move |decision| (group, decision))
    });
    decisions.map(|(group, decision)| lent_folder_finding(group, &decision)).collect()
}

fn lent_folder_finding(group: &Group, decision: &FolderDecision) -> Finding {
    let (name, path) = (&group.name, decision.asked.path.display());
    match &decision.outcome {
        Ok(granted) => Finding::good(format!("The group {name} is lent {path}, as {}", granted.container)),
        Err(why) => Finding::warning(
            format!("The group {name} is lent {path}, but its agent does not see it: {why}"),
            format!("Mend that, or take the folder back with `nanokimi groups set {name} --no-folder PATH`"),
        ),
    }
}
