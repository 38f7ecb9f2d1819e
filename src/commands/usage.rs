//! `/usage`: how many tokens were used today and in the last 14 days, in all chats and in this one, below a picture of
//! those days.

use super::{CommandContext, CommandDefinition, CommandEffect, CommandOutcome, DayTokens};
use crate::notices::{self, UsageSums};
use crate::types::{ChartDay, TokenUsage, UsageChart};

/// Of how many days it tells, today among them.
const DAYS_TOLD: u32 = 14;

pub(super) const DEFINITION: CommandDefinition = CommandDefinition {
    english: "/usage",
    spanish: "/uso",
    summary: notices::usage_command_summary,
    argument: None,
    decide: sum_up_tokens,
    days_told: DAYS_TOLD,
};

fn sum_up_tokens(context: &CommandContext<'_>) -> CommandOutcome {
    let mut sums = UsageSums { in_chat: TokenUsage::default(), in_all: TokenUsage::default() };
    for DayTokens { in_chat, in_all } in &context.standing.days {
        sums.in_chat += *in_chat;
        sums.in_all += *in_all;
    }
    let DayTokens { in_chat, in_all } = context.standing.today();
    let today = UsageSums { in_chat, in_all };
    let answer = notices::usage_notice(context.lang, today, DAYS_TOLD, sums);
    let tokens = |DayTokens { in_chat, in_all }: &DayTokens| ChartDay {
        in_all: in_all.counted_tokens(),
        in_chat: in_chat.counted_tokens(),
    };
    let chart = UsageChart {
        last_day: context.now.to_zoned(context.zone.clone()).date(),
        days: context.standing.days.iter().map(tokens).collect(),
    };
    CommandOutcome { answer, effect: CommandEffect::ShowsChart(chart) }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{answer_in_family, outcome_in};
    use super::super::{ChatStanding, Command, CommandEffect, DayTokens};
    use crate::types::{ChatId, Group, GroupName, Lang, Role, TokenUsage};

    #[test]
    fn it_sums_up_today_and_the_last_days() {
        let used = |input, output| TokenUsage { input, cached: input / 2, output };
        let day = |chat, all| DayTokens { in_chat: used(chat, 10), in_all: used(all, 20) };
        let days = vec![day(1_000, 3_000), day(2_000, 2_000), DayTokens::default(), day(400, 600)];
        let standing = ChatStanding { days, ..ChatStanding::default() };
        let said = [Lang::En, Lang::Es].map(|lang| answer_in_family(Command::Usage, &standing, lang));
        insta::assert_snapshot!(said.join("\n\n"), @r"
        Tokens today: 600 in (300 cached), 20 out; in this chat 400 in (200 cached), 10 out.
        In the last 14 days: 5600 in (2800 cached), 60 out; in this chat 3400 in (1700 cached), 30 out.

        Tokens de hoy: 600 de entrada (300 en caché), 20 de salida; en este chat 400 de entrada (200 en caché), 10 de salida.
        De los últimos 14 días: 5600 de entrada (2800 en caché), 60 de salida; en este chat 3400 de entrada (1700 en caché), 30 de salida.
        ");
        assert_eq!(Command::Usage.days_told(), 14);
        let group = Group::new(GroupName::parse("family").unwrap(), ChatId::new("family@g.us"), Role::Member);
        let effect = outcome_in(&group, (Command::Usage, None), &standing, Lang::En).effect;
        let CommandEffect::ShowsChart(chart) = effect else { panic!("{effect:?}") };
        assert_eq!(chart.to_string(), "2026-11-22 3020/1010 2020/2010 0/0 620/410");
    }
}
