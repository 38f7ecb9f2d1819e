//! What the agents sent to the web and received from it, by group and day of this install's time zone.

use anyhow::Result;
use jiff::civil::Date;
use rusqlite::params;

use super::Store;
use crate::types::{GroupName, WebTraffic};

impl Store {
    /// Adds to what a group's agent has moved on a day.
    pub async fn add_web_traffic(&self, group: &GroupName, day: Date, more: WebTraffic) -> Result<()> {
        let group = group.clone();
        self.with_connection(move |connection| {
            connection
                .prepare_cached(
                    "INSERT INTO web_traffic (group_name, day, sent_bytes, received_bytes) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (group_name, day) DO UPDATE
                     SET sent_bytes = sent_bytes + ?3, received_bytes = received_bytes + ?4",
                )?
                .execute(params![
                    group.as_str(),
                    day.to_string(),
                    more.sent.cast_signed(),
                    more.received.cast_signed()
                ])?;
            Ok(())
        })
        .await
    }

    /// What every group moved from `first` to `last`, both included, all days together; in the order of their
    /// names, without those that moved nothing.
    pub async fn web_traffic_by_group(
        &self,
        first: Date,
        last: Date,
    ) -> Result<Vec<(GroupName, WebTraffic)>> {
        self.with_connection(move |connection| {
            let mut statement = connection.prepare(
                "SELECT group_name, sum(sent_bytes), sum(received_bytes) FROM web_traffic
                 WHERE day BETWEEN ?1 AND ?2 GROUP BY group_name ORDER BY group_name",
            )?;
            let found = statement.query_map([first.to_string(), last.to_string()], |row| {
                let bytes = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
                Ok((row.get::<_, String>(0)?, WebTraffic { sent: bytes(1)?, received: bytes(2)? }))
            })?;
            found
                .map(|row| {
                    let (name, traffic) = row?;
                    Ok((GroupName::parse(&name)?, traffic))
                })
                .collect()
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_add_up_by_group_and_day() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("nanokimi.db")).unwrap();
        let group = |name| GroupName::parse(name).unwrap();
        let day = |day| Date::new(2026, 11, day).unwrap();
        for (name, on, sent, received) in
            [("main", 1, 1, 10), ("family", 2, 2, 20), ("family", 2, 4, 40), ("family", 9, 8, 80)]
        {
            let more = WebTraffic { sent, received };
            store.add_web_traffic(&group(name), day(on), more).await.unwrap();
        }
        let moved = async |first, last| {
            let found = store.web_traffic_by_group(day(first), day(last)).await.unwrap();
            found
                .into_iter()
                .map(|(name, moved)| format!("{name} {} {}", moved.sent, moved.received))
                .collect::<Vec<_>>()
        };
        assert_eq!(moved(1, 30).await, ["family 14 140", "main 1 10"]);
        assert_eq!(moved(2, 8).await, ["family 6 60"]);
        assert_eq!(moved(10, 30).await, [""; 0]);
    }
}
