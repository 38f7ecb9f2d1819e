//! What nanokimi writes for systemd and tells it: the text of the user unit, and the messages of a running
//! service.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sd_notify::NotifyState;

use super::exit::{ExitCause, FOR_A_PERSON};
use crate::service;

/// How long after the service's own bounds systemd waits before it kills: the bridge still has to end, for up
/// to 22 s.
const STOP_MARGIN: Duration = Duration::from_secs(30);

/// The unit that runs `program` on the install in `home`; both are absolute.
///
/// # Errors
/// A path that systemd cannot run or read.
pub fn render_systemd_unit(program: &Path, home: &Path) -> Result<String> {
    let program = path_to_utf8(program)?;
    // systemd's own rule for what it starts; arguments may hold them.
    if program.contains(['"', '\'', '\\']) || program.contains(char::is_control) {
        bail!("systemd runs no program with a quote or a backslash in its path; move {program:?} elsewhere");
    }
    let program = quote_for_systemd(program);
    let home = quote_for_systemd(path_to_utf8(home)?);
    let not_again = FOR_A_PERSON.map(ExitCause::exit_code).map(|code| code.to_string()).join(" ");
    let stop_limit = (service::STOP_LIMIT + STOP_MARGIN).as_secs();
    // No limit of starts: a failure that is left ends by itself, or when somebody mends it, and nobody looks
    // at a service that has given up. The colon: a "$" in a path is a letter, not a variable.
    Ok(format!(
        "[Unit]
Description=nanokimi, a WhatsApp assistant
After=docker.service
Wants=docker.service
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart=:{program} --home {home} run
Restart=on-failure
RestartPreventExitStatus={not_again}
RestartSec=5
TimeoutStopSec={stop_limit}
KillMode=mixed

[Install]
WantedBy=default.target
"
    ))
}

fn path_to_utf8(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8, which systemd needs", path.display()))
}

/// A word of a command line as systemd reads it: systemd.service(5), "Command lines", and systemd.syntax(7).
fn quote_for_systemd(word: &str) -> String {
    let mut quoted = String::from("\"");
    for c in word.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '%' => quoted.push_str("%%"),
            c if c.is_ascii_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Tells systemd, if it started this process (`NOTIFY_SOCKET`).
pub fn notify_systemd(news: NotifyState) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(&news)) {
        tracing::warn!("systemd cannot be told {news}: {error}");
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    #[test]
    fn the_unit_starts_this_binary_on_this_install() {
        let unit =
            render_systemd_unit(Path::new("/home/kai/.local/bin/nanokimi"), Path::new("/home/kai/nanokimi"))
                .unwrap();
        assert_snapshot!(unit, @r#"
        [Unit]
        Description=nanokimi, a WhatsApp assistant
        After=docker.service
        Wants=docker.service
        StartLimitIntervalSec=0

        [Service]
        Type=notify
        NotifyAccess=main
        ExecStart=:"/home/kai/.local/bin/nanokimi" --home "/home/kai/nanokimi" run
        Restart=on-failure
        RestartPreventExitStatus=3 4 5 6
        RestartSec=5
        TimeoutStopSec=85
        KillMode=mixed

        [Install]
        WantedBy=default.target
        "#);
    }

    #[test]
    fn odd_paths_reach_the_program_as_they_are() {
        for (home, expected) in [
            ("/srv/my chats", r#""/srv/my chats""#),
            ("/srv/100%h", r#""/srv/100%%h""#),
            ("/srv/$HOME ${x}", r#""/srv/$HOME ${x}""#),
            (r#"/srv/"a" 'b' \c"#, r#""/srv/\"a\" 'b' \\c""#),
            ("/srv/a\nExecStart=/bin/x", r#""/srv/a\x0aExecStart=/bin/x""#),
            ("/srv/año; #", r#""/srv/año; #""#),
        ] {
            let unit = render_systemd_unit(Path::new("/opt/my $1 %/nanokimi"), Path::new(home)).unwrap();
            let line = unit.lines().find(|line| line.starts_with("ExecStart=")).unwrap();
            assert_eq!(line, format!(r#"ExecStart=:"/opt/my $1 %%/nanokimi" --home {expected} run"#));
        }
    }

    #[test]
    fn a_program_that_systemd_would_refuse_is_refused_first() {
        for program in
            [r#"/opt/"x"/nanokimi"#, "/opt/it's/nanokimi", r"/opt/a\b/nanokimi", "/opt/a\nb/nanokimi"]
        {
            assert!(render_systemd_unit(Path::new(program), Path::new("/srv")).is_err(), "{program:?}");
        }
    }
}
