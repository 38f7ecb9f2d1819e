//! The words that several kinds of messages share: names, lines and lists of bounded length. Pure, over what
//! strangers wrote.

use whatsapp_rust::prelude::wa;
use whatsapp_rust::prelude::wa::message as kind;

use crate::writing::is_bidi_control;

/// Most characters of a message's text: WhatsApp's own limit.
const TEXT_MAX_CHARS: usize = 65_536;
/// Most characters of a name.
const NAME_MAX: usize = 64;
/// Most contacts, choices of a poll, buttons or cards that are named.
pub const LIST_MAX: usize = 20;
/// Most characters of a question or a choice.
pub const LINE_MAX: usize = 255;

/// A name as one line of bounded length that cannot reorder what stands beside it.
pub fn clean_name(name: &str) -> String {
    clean_line(name, NAME_MAX)
}

/// A text as one line of so many characters, without controls that turn text around.
pub fn clean_line(text: &str, most_chars: usize) -> String {
    let spaced = text.chars().map(|c| if c.is_whitespace() { ' ' } else { c });
    let visible = spaced.filter(|c| !c.is_control() && !is_bidi_control(*c));
    let kept: String = visible.take(most_chars).collect();
    kept.trim().to_owned()
}

/// A text of any length that WhatsApp's own clients send. Of a longer one the middle is left out: its
/// beginning and its end are what somebody may call Kai with.
pub fn shorten_middle(text: &str) -> String {
    const LEFT_OUT: &str = " … ";
    let chars = text.chars().count();
    if chars <= TEXT_MAX_CHARS {
        return text.to_owned();
    }
    let half = (TEXT_MAX_CHARS - LEFT_OUT.len()) / 2;
    let head = text.char_indices().nth(half).map_or(text.len(), |(at, _)| at);
    let tail = text.char_indices().nth(chars - half).map_or(text.len(), |(at, _)| at);
    format!("{}{LEFT_OUT}{}", &text[..head], &text[tail..])
}

/// At most `limit` bytes, cut between characters.
pub fn truncate_to_bytes(text: &str, limit: usize) -> String {
    const CUT: char = '…';
    if text.len() <= limit {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(limit.saturating_sub(CUT.len_utf8()));
    let mut cut = text[..end].to_owned();
    cut.push(CUT);
    cut
}

/// What somebody wrote, whole.
pub fn optional_text(text: &Option<String>) -> String {
    text.as_deref().map(shorten_middle).unwrap_or_default()
}

/// A question, a title, a choice: one line.
pub fn optional_line(text: &Option<String>) -> String {
    clean_line(text.as_deref().unwrap_or_default(), LINE_MAX)
}

/// The first that says something.
pub fn first_non_blank<const N: usize>(texts: [String; N]) -> String {
    texts.into_iter().find(|text| !text.trim().is_empty()).unwrap_or_default()
}

/// Those that say something, one below the other.
pub fn join_lines(texts: impl IntoIterator<Item = String>) -> String {
    join_non_empty(texts, "\n")
}

pub fn join_non_empty(texts: impl IntoIterator<Item = String>, between: &str) -> String {
    texts.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(between)
}

/// `[Order: Cake — 2 items]`, or `[Order]`.
pub fn render_labelled(what: &str, parts: impl IntoIterator<Item = String>) -> String {
    match join_non_empty(parts, " — ") {
        parts if parts.is_empty() => format!("[{what}]"),
        parts => format!("[{what}: {parts}]"),
    }
}

/// `[Choices: Pizza · Pasta]`; nothing without any.
pub fn render_choice_list(what: &str, names: impl IntoIterator<Item = String>) -> String {
    match join_non_empty(names.into_iter().take(LIST_MAX), " · ") {
        names if names.is_empty() => names,
        names => format!("[{what}: {names}]"),
    }
}

/// `[Location: 40.712800, -74.006000 — NYC]`; nothing for a place that is not on earth.
pub fn render_location(location: &kind::LocationMessage) -> String {
    let what = if location.is_live == Some(true) { "Live location" } else { "Location" };
    let called = join_non_empty(
        [&location.name, &location.address].map(|called| clean_name(called.as_deref().unwrap_or_default())),
        ", ",
    );
    match render_coordinates(location.degrees_latitude, location.degrees_longitude) {
        Some(degrees) => {
            join_lines([render_labelled(what, [degrees, called]), optional_text(&location.comment)])
        }
        None => String::new(),
    }
}

pub fn render_coordinates(latitude: Option<f64>, longitude: Option<f64>) -> Option<String> {
    let (latitude, longitude) = (latitude?, longitude?);
    let is_there = (-90.0..=90.0).contains(&latitude) && (-180.0..=180.0).contains(&longitude);
    is_there.then(|| format!("{latitude:.6}, {longitude:.6}"))
}

/// `12.50 EUR`.
pub fn render_money(amount: &wa::Money) -> String {
    let units = amount.value.unwrap_or_default() as f64 / f64::from(amount.offset.unwrap_or(1).max(1));
    format!("{units:.2} {}", optional_line(&amount.currency_code)).trim_end().to_owned()
}

/// The same for an amount in thousandths; nothing without one.
pub fn render_thousandths(amount: Option<i64>, currency: &Option<String>) -> String {
    amount
        .map(|amount| {
            render_money(&wa::Money {
                value: Some(amount),
                offset: Some(1000),
                currency_code: currency.clone(),
            })
        })
        .unwrap_or_default()
}
