//! The part of the settings that the store goes by.

use crate::session::Settings;
use crate::store::Rules;
use crate::types::OfferedModels;

pub fn rules_from_settings(settings: &Settings) -> Rules {
    Rules {
        assistant: settings.assistant.clone(),
        answer_within: settings.answer_within,
        lang: settings.lang,
        reply_prefix: settings.reply_prefix.clone(),
        zone: settings.zone.clone(),
        engine: settings.engine,
        // Only who answers commands needs them.
        models: OfferedModels::default(),
    }
}
