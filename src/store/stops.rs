//! The table `stops`: agents that were stopped as they took too much of the machine, for `status`.

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};
use rusqlite::params;

use super::{Store, from_unix_millis, to_unix_millis};
use crate::types::{GroupName, Trouble};

/// How long a stop is worth showing.
const SHOWN_FOR: SignedDuration = SignedDuration::from_hours(7 * 24);

/// The latest time that a group's agent was stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentStop {
    pub group: GroupName,
    pub why: Trouble,
    pub at: Timestamp,
}

impl Store {
    /// Notes that a group's agent was stopped.
    pub async fn record_agent_stop(&self, group: &GroupName, why: Trouble, now: Timestamp) -> Result<()> {
        let group = group.clone();
        self.with_connection(move |connection| {
            connection
                .prepare_cached(
                    "INSERT INTO stops (group_name, why, at) VALUES (?1, ?2, ?3)
                     ON CONFLICT (group_name) DO UPDATE SET why = ?2, at = ?3",
                )?
                .execute(params![group.as_str(), stop_reason_name(why), to_unix_millis(now)])?;
            Ok(())
        })
        .await
    }

    /// The stops of the last days, the newest first.
    pub async fn recent_agent_stops(&self, now: Timestamp) -> Result<Vec<AgentStop>> {
        self.with_connection(move |connection| {
            let mut statement = connection.prepare(
                "SELECT group_name, why, at FROM stops WHERE at > ?1 ORDER BY at DESC, group_name",
            )?;
            let rows = statement
                .query_map([to_unix_millis(now - SHOWN_FOR)], |row| {
                    Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, from_unix_millis(row.get(2)?)))
                })?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            let known = |why: &str| WHYS.into_iter().find(|known| stop_reason_name(*known) == why);
            let stop = |(group, why, at): (String, String, Timestamp)| {
                Some(AgentStop { group: GroupName::parse(&group).ok()?, why: known(&why)?, at })
            };
            Ok(rows.into_iter().filter_map(stop).collect())
        })
        .await
    }
}

/// What agents are stopped for.
const WHYS: [Trouble; 2] = [Trouble::DiskShare, Trouble::SystemLimit];

fn stop_reason_name(why: Trouble) -> &'static str {
    if why == Trouble::DiskShare { "disk" } else { "kernel" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_latest_stop_of_each_group_is_shown_for_a_week() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("a.db")).unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let (family, team) = (GroupName::parse("family").unwrap(), GroupName::parse("team").unwrap());
        store.record_agent_stop(&team, Trouble::DiskShare, at("2026-11-01T00:00:00Z")).await.unwrap();
        store.record_agent_stop(&family, Trouble::DiskShare, at("2026-11-20T00:00:00Z")).await.unwrap();
        store.record_agent_stop(&family, Trouble::SystemLimit, at("2026-11-21T00:00:00Z")).await.unwrap();
        let stops = store.recent_agent_stops(at("2026-11-22T00:00:00Z")).await.unwrap();
        let family = AgentStop { group: family, why: Trouble::SystemLimit, at: at("2026-11-21T00:00:00Z") };
        assert_eq!(stops, [family]);
    }
}
