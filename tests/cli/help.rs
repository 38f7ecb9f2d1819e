//! The help of every verb.

use insta::assert_snapshot;

use crate::world::Home;

fn help(verb: &[&str]) -> String {
    let said = Home::empty().run(&[verb, &["--help"]].concat()).done();
    assert_eq!(said.stderr, "");
    said.stdout
}

#[test]
fn nanokimi() {
    assert_snapshot!(help(&[]), @"
    A WhatsApp assistant for your own server: one binary, one rootless container per chat

    Usage: nanokimi [OPTIONS] <COMMAND>

    Commands:
      demo      Try nanokimi: makes this machine ready and talks to a practice model, without any
                account
      auth      Link your WhatsApp account, as another device of it
      login     Log in to Kimi, by a code that you take to any browser
      accounts  Let another Kimi account answer when the first is used up
      setup     Choose your main channel among your WhatsApp chats
      build     Build the agent image
      run       Run the service in the foreground
      chat      Talk to a group's agent from this terminal
      groups    List, add, change and remove the chats that the assistant serves
      tasks     Plan what the assistant does on time, and show what came of it
      gateway   Let coding tools on this machine use the Kimi login
      service   Keep nanokimi running with systemd
      status    Show what this install does and what waits
      usage     Show the tokens and turns of each group, by day
      doctor    Look for what is wrong, and say how to mend it

    Options:
          --home <FOLDER>  The folder of this install [default: NANOKIMI_HOME, else this folder if it is
                           one, else ~/nanokimi]
      -h, --help           Print help
      -V, --version        Print version
    ");
}

#[test]
fn without_a_verb_help_is_shown() {
    let said = Home::empty().run(&[]);
    assert_eq!((said.code, said.stderr), (Some(2), help(&[])));
    let said = Home::empty().run(&["groups"]);
    assert_eq!((said.code, said.stderr), (Some(2), help(&["groups"])));
}

#[test]
fn a_misspelt_verb_is_named_with_the_right_one() {
    let said = Home::empty().run(&["stauts"]);
    assert_eq!(said.code, Some(2));
    assert_snapshot!(said.stderr, @"
    error: unrecognized subcommand 'stauts'

      tip: some similar subcommands exist: 'setup', 'accounts', 'tasks', 'status'

    Usage: nanokimi [OPTIONS] <COMMAND>

    For more information, try '--help'.
    ");
}

#[test]
fn demo() {
    assert_snapshot!(help(&["demo"]), @"
    Try nanokimi: makes this machine ready and talks to a practice model, without any account

    Usage: nanokimi demo [OPTIONS]

    Options:
          --yes            Install what is missing without asking
          --say <TEXT>     Say this, wait for the answer, and end
          --home <FOLDER>  The folder of the demo's install [default: ~/nanokimi-demo]
      -h, --help           Print help
    ");
}

#[test]
fn auth() {
    assert_snapshot!(help(&["auth"]), @"
    Link your WhatsApp account, as another device of it

    Usage: nanokimi auth [OPTIONS]

    Options:
          --pair-code <PHONE>  Link by a code to type into the phone, whose number this is: +34600111222
          --status             Show which account is linked, and how the link last stood; asks nobody
          --logout             Remove this device from the account, and the keys of the link from this
                               machine
          --yes                With --logout: do not ask
          --home <FOLDER>      The folder of this install [default: NANOKIMI_HOME, else this folder if
                               it is one, else ~/nanokimi]
      -h, --help               Print help

    Without an option, the phone scans a QR code. On a terminal it is renewed in place, and gone
    afterwards; in a pipe each code is printed once, as it comes, for whoever reads along. The exit
    codes are in docs/operating.md.
    ");
}

#[test]
fn login() {
    assert_snapshot!(help(&["login"]), @"
    Log in to Kimi, by a code that you take to any browser

    Usage: nanokimi login [OPTIONS]

    Options:
          --status           Show whose login there is, who renews it, and what is left of the plan
          --logout           Remove the login from this machine
          --account <NAME>   Log in with a further account, or anew with one that is there
          --region <REGION>  The region of Kimi that a further account is of [default: KIMI_REGION]
                             [possible values: com, ai]
          --home <FOLDER>    The folder of this install [default: NANOKIMI_HOME, else this folder if it
                             is one, else ~/nanokimi]
      -h, --help             Print help
    ");
}

#[test]
fn accounts() {
    assert_snapshot!(help(&["accounts"]), @"
    Let another Kimi account answer when the first is used up

    Usage: nanokimi accounts [OPTIONS] <COMMAND>

    Commands:
      list     Show the accounts, which answers first, and what is left of each
      use      Let an account answer first
      enable   Let an account answer again
      disable  Keep an account and its login, but let it answer nothing
      rename   Give an account another name
      remove   Remove an account and its login from this machine
      import   Take over the accounts of kimicode-accounts.json, or a kimi-code.json of another machine

    Options:
          --home <FOLDER>  The folder of this install [default: NANOKIMI_HOME, else this folder if it is
                           one, else ~/nanokimi]
      -h, --help           Print help
    ");
}

#[test]
fn setup() {
    assert_snapshot!(help(&["setup"]), @"
    Choose your main channel among your WhatsApp chats

    Usage: nanokimi setup [OPTIONS]

    Options:
          --main <ID>      The chat's id, instead of choosing it from a list
          --home <FOLDER>  The folder of this install [default: NANOKIMI_HOME, else this folder if it is
                           one, else ~/nanokimi]
      -h, --help           Print help
    ");
}

#[test]
fn groups_chats() {
    assert_snapshot!(help(&["groups", "chats"]), @"
    Show the WhatsApp chats that could be groups, with their ids for `add`

    Usage: nanokimi groups chats [OPTIONS]

    Options:
          --home <FOLDER>  The folder of this install [default: NANOKIMI_HOME, else this folder if it is
                           one, else ~/nanokimi]
      -h, --help           Print help
    ");
}

#[test]
fn build() {
    assert_snapshot!(help(&["build"]), @"
    Build the agent image

    Usage: nanokimi build [OPTIONS]

    Options:
          --home <FOLDER>  The folder of this install [default: NANOKIMI_HOME, else this folder if it is
                           one, else ~/nanokimi]
      -h, --help           Print help
    ");
}

#[test]
fn run() {
    assert_snapshot!(help(&["run"]), @"
    Run the service in the foreground

    Usage: nanokimi run [OPTIONS]

    Options:
          --home <FOLDER>  The folder of this install [default: NANOKIMI_HOME, else this folder if it is
                           one, else ~/nanokimi]
      -h, --help           Print help
    ");
}

#[test]
fn chat() {
    assert_snapshot!(help(&["chat"]), @"
    Talk to a group's agent from this terminal

    Usage: nanokimi chat [OPTIONS]

    Options:
          --group <NAME>   The group to talk in [default: main]
          --say <TEXT>     Say this, wait for the answer, and end
          --home <FOLDER>  The folder of this install [default: NANOKIMI_HOME, else this folder if it is
                           one, else ~/nanokimi]
      -h, --help           Print help
    ");
}

#[test]
fn groups() {
    assert_snapshot!(help(&["groups"]), @"
    List, add, change and remove the chats that the assistant serves

    Usage: nanokimi groups [OPTIONS] <COMMAND>

    Commands:
      list    Show the groups
      chats   Show the WhatsApp chats that could be groups, with their ids for `add`
      people  Show who has written in a group, and who may ask there
      add     Serve a chat as a group
      set     Change how a group's agent works, from its next turn on
      remove  Stop serving a chat; its folder and history stay, and `add` takes them up again

    Options:
          --home <FOLDER>  The folder of this install [default: NANOKIMI_HOME, else this folder if it is
                           one, else ~/nanokimi]
      -h, --help           Print help
    ");
}

#[test]
fn groups_list() {
    assert_snapshot!(help(&["groups", "list"]), @"
    Show the groups

    Usage: nanokimi groups list [OPTIONS]

    Options:
          --home <FOLDER>  The folder of this install [default: NANOKIMI_HOME, else this folder if it is
                           one, else ~/nanokimi]
      -h, --help           Print help
    ");
}

#[test]
fn groups_add() {
    assert_snapshot!(help(&["groups", "add"]), @r#"
    Serve a chat as a group

    Usage: nanokimi groups add [OPTIONS] <NAME>

    Arguments:
      <NAME>  The group's folder name: letters, digits, "-" and "_"

    Options:
          --chat <ID>       The chat's id, as `chats` shows it [default: a chat at this terminal, for
                            `nanokimi chat`]
          --trigger <WORD>  The word after "@" that wakes the assistant there [default: the assistant's
                            name]
          --main            Make it the main channel: your own chat, where every message is for the
                            assistant
          --home <FOLDER>   The folder of this install [default: NANOKIMI_HOME, else this folder if it
                            is one, else ~/nanokimi]
      -h, --help            Print help
    "#);
}

#[test]
fn groups_set() {
    assert_snapshot!(help(&["groups", "set"]), @r#"
    Change how a group's agent works, from its next turn on

    Usage: nanokimi groups set [OPTIONS] [NAME]

    Arguments:
      [NAME]  The group's name, as `list` shows it

    Options:
          --all                      Change all groups
          --trigger <WORD>           The word after "@" that wakes the assistant there; "default" is the
                                     assistant's name
          --engine <ENGINE>          The agent program: kimi-code, or kimi-cli, which has ended;
                                     "default" is ENGINE of .env
          --web <WEB>                What of the web its agent reaches: nothing, the hosts of --hosts,
                                     or every public address [possible values: none, allowlist, web]
          --hosts <HOST>             The hosts of `--web allowlist`, with those beneath them; they
                                     replace the ones before
          --daily-tokens <NUMBER>    Most tokens that it may use in a day; "none" is no limit
          --turns-per-hour <NUMBER>  Most calls of one person, you left out, that it answers in an hour;
                                     "none" is no limit
          --turn-tokens <NUMBER>     Most tokens that one turn may use: it ends there, and says so;
                                     "none" is no limit
          --folder <PATH[:rw]>       A folder of this machine that its agent may read, or with ":rw"
                                     change; the allowlist must have it
          --no-folder <PATH>         A folder that its agent sees no more
          --forwards <FORWARDS>      What a forwarded message does that names the assistant: it is told
                                     with the next message, or calls it [possible values: told, call]
          --senders <SENDERS>        Who may ask there, beside you: anyone, the people of --allow, or
                                     nobody [possible values: anyone, listed, owner]
          --allow <PERSON>...        People who may ask there with `--senders listed`: a phone number,
                                     or what `groups people` shows
          --disallow <PERSON>...     People who may not any more
          --others <OTHERS>          What becomes of the messages of those who may not ask: told with
                                     the next message that calls, or dropped [possible values: context,
                                     dropped]
          --refuse <REFUSE>          What those hear who call and may not ask: nothing, or one sentence
                                     a day [possible values: silent, told]
          --home <FOLDER>            The folder of this install [default: NANOKIMI_HOME, else this
                                     folder if it is one, else ~/nanokimi]
      -h, --help                     Print help
    "#);
}

#[test]
fn groups_remove() {
    assert_snapshot!(help(&["groups", "remove"]), @"
    Stop serving a chat; its folder and history stay, and `add` takes them up again

    Usage: nanokimi groups remove [OPTIONS] <NAME>

    Arguments:
      <NAME>  The group's name, as `list` shows it

    Options:
          --home <FOLDER>  The folder of this install [default: NANOKIMI_HOME, else this folder if it is
                           one, else ~/nanokimi]
      -h, --help           Print help
    ");
}

#[test]
fn service() {
    assert_snapshot!(help(&["service"]), @"
    Keep nanokimi running with systemd

    Usage: nanokimi service [OPTIONS] <COMMAND>

    Commands:
      install    Start nanokimi now and at every boot, and again when it breaks
      uninstall  Stop the service and remove it; the install and all its data stay
      status     Show whether the service runs
      logs       Show what the service logged

    Options:
          --home <FOLDER>  The folder of this install [default: NANOKIMI_HOME, else this folder if it is
                           one, else ~/nanokimi]
      -h, --help           Print help
    ");
}

#[test]
fn service_install() {
    assert_snapshot!(help(&["service", "install"]), @"
    Start nanokimi now and at every boot, and again when it breaks

    Usage: nanokimi service install [OPTIONS]

    Options:
          --linger         Also let your services run while you are not logged in
          --home <FOLDER>  The folder of this install [default: NANOKIMI_HOME, else this folder if it is
                           one, else ~/nanokimi]
      -h, --help           Print help
    ");
}

#[test]
fn service_uninstall() {
    assert_snapshot!(help(&["service", "uninstall"]), @"
    Stop the service and remove it; the install and all its data stay

    Usage: nanokimi service uninstall [OPTIONS]

    Options:
          --home <FOLDER>  The folder of this install [default: NANOKIMI_HOME, else this folder if it is
                           one, else ~/nanokimi]
      -h, --help           Print help
    ");
}

#[test]
fn service_status() {
    assert_snapshot!(help(&["service", "status"]), @"
    Show whether the service runs

    Usage: nanokimi service status [OPTIONS]

    Options:
          --home <FOLDER>  The folder of this install [default: NANOKIMI_HOME, else this folder if it is
                           one, else ~/nanokimi]
      -h, --help           Print help
    ");
}

#[test]
fn service_logs() {
    assert_snapshot!(help(&["service", "logs"]), @"
    Show what the service logged

    Usage: nanokimi service logs [OPTIONS]

    Options:
          --follow          Go on with what it logs from now on, until Ctrl-C
          --lines <NUMBER>  How many of the last lines to show [default: 100]
          --home <FOLDER>   The folder of this install [default: NANOKIMI_HOME, else this folder if it
                            is one, else ~/nanokimi]
      -h, --help            Print help
    ");
}

#[test]
fn status() {
    assert_snapshot!(help(&["status"]), @"
    Show what this install does and what waits

    Usage: nanokimi status [OPTIONS]

    Options:
          --home <FOLDER>  The folder of this install [default: NANOKIMI_HOME, else this folder if it is
                           one, else ~/nanokimi]
      -h, --help           Print help
    ");
}

#[test]
fn usage() {
    assert_snapshot!(help(&["usage"]), @"
    Show the tokens and turns of each group, by day

    Usage: nanokimi usage [OPTIONS]

    Options:
          --days <N>       How many days, today included [default: 7]
          --group <NAME>   This group only
          --home <FOLDER>  The folder of this install [default: NANOKIMI_HOME, else this folder if it is
                           one, else ~/nanokimi]
      -h, --help           Print help
    ");
}

#[test]
fn doctor() {
    assert_snapshot!(help(&["doctor"]), @"
    Look for what is wrong, and say how to mend it

    Usage: nanokimi doctor [OPTIONS]

    Options:
          --home <FOLDER>  The folder of this install [default: NANOKIMI_HOME, else this folder if it is
                           one, else ~/nanokimi]
      -h, --help           Print help
    ");
}

#[test]
fn tasks() {
    assert_snapshot!(help(&["tasks"]), @"
    Plan what the assistant does on time, and show what came of it

    Usage: nanokimi tasks [OPTIONS] <COMMAND>

    Commands:
      list     Show the tasks, the next that is due first
      show     Show all of a task
      add      Plan a task
      edit     Change a task
      pause    Keep a task from coming due
      resume   Let a task come due again, from now on
      run      Run a task now, beside its schedule
      cancel   Forget a task and its history
      history  Show when a task was due, and what came of it

    Options:
          --home <FOLDER>  The folder of this install [default: NANOKIMI_HOME, else this folder if it is
                           one, else ~/nanokimi]
      -h, --help           Print help
    ");
}

#[test]
fn tasks_add() {
    assert_snapshot!(help(&["tasks", "add"]), @r#"
    Plan a task

    Usage: nanokimi tasks add [OPTIONS] <GROUP> <SCHEDULE> <TEXT>

    Arguments:
      <GROUP>     The group in whose chat it is done
      <SCHEDULE>  When: "cron 0 9 * * MON-FRI", "every 2h", "at 2026-12-01 09:00" or "in 30m"
      <TEXT>      What the assistant is to do

    Options:
          --zone <ZONE>          The time zone of its times, such as Europe/Madrid; a new task has that
                                 of TZ
          --late <RULE>          What to do about a time that passed unseen: "skip", "once" or "within
                                 2h"; a new task has "once"
          --context <CONTEXT>    What it knows: "group", the chat's own conversation, which a new task
                                 has, or "isolated", a fresh one each time, with its last answer
          --only-if <COMMAND>    A command of its container that is run first: with exit code 0 the task
                                 runs, with another one this time is skipped; "" is no command
          --max-tokens <NUMBER>  End a run that uses more tokens than this, and pause the task; "none"
                                 is no limit
          --home <FOLDER>        The folder of this install [default: NANOKIMI_HOME, else this folder if
                                 it is one, else ~/nanokimi]
      -h, --help                 Print help
    "#);
}

#[test]
fn gateway() {
    assert_snapshot!(help(&["gateway"]), @"
    Let coding tools on this machine use the Kimi login

    Usage: nanokimi gateway [OPTIONS] <COMMAND>

    Commands:
      enable   Let the gateway listen whenever nanokimi runs
      disable  Let it listen no more
      run      Run the gateway alone in the foreground, without WhatsApp and chats
      keys     Give clients keys, and take them away
      config   Show what to put into the settings of a coding tool

    Options:
          --home <FOLDER>  The folder of this install [default: NANOKIMI_HOME, else this folder if it is
                           one, else ~/nanokimi]
      -h, --help           Print help
    ");
}

#[test]
fn gateway_enable() {
    assert_snapshot!(help(&["gateway", "enable"]), @"
    Let the gateway listen whenever nanokimi runs

    Usage: nanokimi gateway enable [OPTIONS]

    Options:
          --listen <ADDRESS>  An address of this machine [default: 127.0.0.1:8788]
          --unix <PATH>       A unix socket, which is made there
          --home <FOLDER>     The folder of this install [default: NANOKIMI_HOME, else this folder if it
                              is one, else ~/nanokimi]
      -h, --help              Print help
    ");
}

#[test]
fn gateway_disable() {
    assert_snapshot!(help(&["gateway", "disable"]), @"
    Let it listen no more

    Usage: nanokimi gateway disable [OPTIONS]

    Options:
          --home <FOLDER>  The folder of this install [default: NANOKIMI_HOME, else this folder if it is
                           one, else ~/nanokimi]
      -h, --help           Print help
    ");
}

#[test]
fn gateway_run() {
    assert_snapshot!(help(&["gateway", "run"]), @"
    Run the gateway alone in the foreground, without WhatsApp and chats

    Usage: nanokimi gateway run [OPTIONS]

    Options:
          --home <FOLDER>  The folder of this install [default: NANOKIMI_HOME, else this folder if it is
                           one, else ~/nanokimi]
      -h, --help           Print help
    ");
}

#[test]
fn gateway_keys() {
    assert_snapshot!(help(&["gateway", "keys"]), @"
    Give clients keys, and take them away

    Usage: nanokimi gateway keys [OPTIONS] <COMMAND>

    Commands:
      add     Make a key for a client, and show it once
      list    Show the keys, without the keys themselves, and what each used today
      remove  Take a key away; it is refused at its next request

    Options:
          --home <FOLDER>  The folder of this install [default: NANOKIMI_HOME, else this folder if it is
                           one, else ~/nanokimi]
      -h, --help           Print help
    ");
}

#[test]
fn gateway_keys_add() {
    assert_snapshot!(help(&["gateway", "keys", "add"]), @r#"
    Make a key for a client, and show it once

    Usage: nanokimi gateway keys add [OPTIONS] <NAME>

    Arguments:
      <NAME>  What the client is called here: letters, digits, "-" and "_"

    Options:
          --daily-tokens <N>  Most tokens that it may use in a day [default: no limit]
          --models <A,B>      The models that it may ask for, with commas between them [default: all]
          --identity <WHICH>  own: it reaches Kimi as itself; kimi-cli: with the headers of Kimi's own
                              program [default: own]
          --home <FOLDER>     The folder of this install [default: NANOKIMI_HOME, else this folder if it
                              is one, else ~/nanokimi]
      -h, --help              Print help
    "#);
}

#[test]
fn gateway_keys_list() {
    assert_snapshot!(help(&["gateway", "keys", "list"]), @"
    Show the keys, without the keys themselves, and what each used today

    Usage: nanokimi gateway keys list [OPTIONS]

    Options:
          --home <FOLDER>  The folder of this install [default: NANOKIMI_HOME, else this folder if it is
                           one, else ~/nanokimi]
      -h, --help           Print help
    ");
}

#[test]
fn gateway_keys_remove() {
    assert_snapshot!(help(&["gateway", "keys", "remove"]), @"
    Take a key away; it is refused at its next request

    Usage: nanokimi gateway keys remove [OPTIONS] <NAME>

    Arguments:
      <NAME>  The key's name, as `list` shows it

    Options:
          --home <FOLDER>  The folder of this install [default: NANOKIMI_HOME, else this folder if it is
                           one, else ~/nanokimi]
      -h, --help           Print help
    ");
}

#[test]
fn gateway_config() {
    assert_snapshot!(help(&["gateway", "config"]), @"
    Show what to put into the settings of a coding tool

    Usage: nanokimi gateway config [OPTIONS] <CLIENT>

    Arguments:
      <CLIENT>  opencode, claude, codex, aider, cline, zed or continue

    Options:
          --write          Put it into OpenCode's own settings; all else in them stays
          --undo           Take it out of them again
          --home <FOLDER>  The folder of this install [default: NANOKIMI_HOME, else this folder if it is
                           one, else ~/nanokimi]
      -h, --help           Print help
    ");
}
