//! Text on its way: messages into prompts for the agent, answers into messages for the chat.
//!
//! Owns what either of them looks like. Never sends anything. The way of an answer through the files:
//!
//! ```text
//! answer ─▶ characters ─▶ internal ─▶ tags ─▶ mention ─▶ markdown ─▶ split ─▶ messages
//!           line ends     notes       files   names      styles      cuts
//! ```
//!
//! `markdown` reads with `parser`, `flanking` and `verbatim`, and writes a `formatted` text, its tables with
//! `table`. `times` tells instants and durations, wherever people read them,
//! `usage_chart` draws the picture of `/usage`.

mod answer;
mod characters;
mod excerpt;
mod flanking;
mod formatted;
mod internal;
mod markdown;
mod mention;
mod parser;
pub mod prompt;
mod split;
mod table;
mod tags;
mod times;
mod usage_chart;
mod verbatim;

pub use answer::{AnswerPart, MESSAGE_LIMIT_CHARS, OmittedParts, RenderedAnswer, render_answer};
pub use characters::normalize_line_ends;
pub use internal::{OpenHiddenTags, strip_hidden_text_after};
pub use mention::MentionablePerson;
pub use tags::FILES_MAX;
pub use times::{describe_duration, describe_instant, describe_local_time};
pub use usage_chart::{ChartWords, draw_usage_chart};
