//! What the modules of the tables say to each other: a row, and whether the outbox has changed.

/// An inbox row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowId(pub(super) i64);

/// Whether delivery has to look again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutboxChange {
    #[default]
    Same,
    Changed,
}
