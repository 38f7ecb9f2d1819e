//! `/model`: which models there are. `/model NAME`: the chat's agent thinks with this one from its next start on.
//!
//! The models are those of the engine's `config.toml`, and `KIMI_MODEL`. An engine keeps the model that it was started
//! with; since the group has changed, it is closed before the next prompt, and the conversation goes on in the next.

use super::{CommandContext, CommandDefinition, CommandEffect, CommandOutcome};
use crate::notices;

pub(super) const DEFINITION: CommandDefinition = CommandDefinition {
    english: "/model",
    spanish: "/modelo",
    summary: notices::model_command_summary,
    argument: Some(notices::name_placeholder),
    decide: list_or_choose_model,
    days_told: 0,
};

fn list_or_choose_model(context: &CommandContext<'_>) -> CommandOutcome {
    let CommandContext { group, models, lang, .. } = *context;
    let current = group.model.as_deref().or(models.usual.as_deref());
    let Some(asked) = context.argument else {
        return CommandOutcome::from_answer(notices::model_list_notice(lang, current, &models.names));
    };
    let Some(name) = models.names.iter().find(|name| name.to_lowercase() == asked.to_lowercase()) else {
        return CommandOutcome::from_answer(notices::unknown_model_notice(lang, &models.names));
    };
    // The usual model is no choice of the group's: it follows the owner's settings.
    let choice = Some(name.clone()).filter(|_| models.usual.as_ref() != Some(name));
    CommandOutcome {
        answer: notices::model_chosen_notice(lang, name),
        effect: CommandEffect::ChoosesModel(choice),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::outcome_in;
    use super::super::{ChatStanding, Command};
    use super::*;
    use crate::types::{ChatId, Group, GroupName, Lang, Role};

    fn outcome(argument: Option<&str>, model: Option<&str>, lang: Lang) -> CommandOutcome {
        let group = Group::new(GroupName::parse("family").unwrap(), ChatId::new("family@g.us"), Role::Member);
        let group = Group { model: model.map(str::to_owned), ..group };
        outcome_in(&group, (Command::Model, argument), &ChatStanding::default(), lang)
    }

    #[test]
    fn only_a_model_that_there_is_can_be_chosen_and_the_usual_one_is_no_choice() {
        let chosen = |model: Option<&str>| CommandEffect::ChoosesModel(model.map(str::to_owned));
        for (argument, expected) in [
            (None, CommandEffect::Nothing),
            (Some("K3"), chosen(Some("k3"))),
            (Some("kimi-for-coding"), chosen(None)),
            (Some("k4"), CommandEffect::Nothing),
            (Some("k3 please"), CommandEffect::Nothing),
        ] {
            assert_eq!(outcome(argument, Some("k3"), Lang::En).effect, expected, "{argument:?}");
        }
    }

    #[test]
    fn it_says_which_models_there_are_and_which_is_chosen() {
        let said = [Lang::En, Lang::Es].map(|lang| {
            [(None, None), (None, Some("k3")), (Some("k3"), None), (Some("k4"), None)]
                .map(|(argument, model)| outcome(argument, model, lang).answer)
                .join("\n")
        });
        insta::assert_snapshot!(said.join("\n"), @r"
        In this chat I think with kimi-for-coding. There is: k3, kimi-for-coding. /model and a name chooses one.
        In this chat I think with k3. There is: k3, kimi-for-coding. /model and a name chooses one.
        From your next message on I think with k3 in this chat.
        There is no such model. I have changed nothing. There is: k3, kimi-for-coding. /model and a name chooses one.
        En este chat pienso con kimi-for-coding. Hay: k3, kimi-for-coding. Con /modelo y un nombre se elige.
        En este chat pienso con k3. Hay: k3, kimi-for-coding. Con /modelo y un nombre se elige.
        Desde tu próximo mensaje pienso con k3 en este chat.
        No hay tal modelo. No he cambiado nada. Hay: k3, kimi-for-coding. Con /modelo y un nombre se elige.
        ");
    }
}
