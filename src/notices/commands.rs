//! What nanokimi answers to the owner's commands, and what `/help` says of each.

use super::pick_language;
use crate::types::Lang;

/// What `/stop` does, in the list of `/help`.
pub fn stop_command_summary(lang: Lang) -> &'static str {
    pick_language(
        lang,
        "I stop at once, and drop what was asked before.",
        "paro al momento y dejo lo que se haya pedido antes.",
    )
}

/// What `/stop` has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoppedWork {
    Turn,
    /// Messages that nobody had begun with.
    Waiting,
    Nothing,
}

/// To the chat in which `/stop` was given.
pub fn stop_notice(lang: Lang, stopped: StoppedWork) -> &'static str {
    let (en, es) = match stopped {
        StoppedWork::Turn => (
            "I have stopped. What was asked before is dropped; if you still want it, ask me again.",
            "He parado. Dejo lo que se había pedido antes; si aún lo quieres, vuelve a pedírmelo.",
        ),
        StoppedWork::Waiting => (
            "I had not begun yet. What was asked before is dropped; if you still want it, ask me again.",
            "Aún no había empezado. Dejo lo que se había pedido antes; si aún lo quieres, vuelve a pedírmelo.",
        ),
        StoppedWork::Nothing => {
            ("I am not working on anything in this chat.", "No estoy haciendo nada en este chat.")
        }
    };
    pick_language(lang, en, es)
}
