//! What an error says to a person: one line, with the system's own words put plainly.

use std::io::{self, ErrorKind};

use anyhow::Error;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// An error with its causes in one line.
pub fn render_error(error: &Error) -> String {
    let mut sentence = String::new();
    for cause in error.chain() {
        let words = match cause.downcast_ref().and_then(describe_io_error) {
            Some(words) => words.to_owned(),
            None => cause.to_string(),
        };
        // Some libraries name their cause themselves.
        if !sentence.contains(&words) {
            let joint = if sentence.is_empty() { "" } else { ": " };
            sentence = format!("{sentence}{joint}{words}");
        }
    }
    sentence
}

/// A time as people write it, in their zone.
pub fn render_time(time: Timestamp, zone: &TimeZone) -> String {
    time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M %Z").to_string()
}

/// Why Docker cannot be used. The causes beneath are about connections; only one of them says more.
pub fn describe_docker_error(error: &Error) -> String {
    let causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    if causes.map(io::Error::kind).any(|kind| kind == ErrorKind::PermissionDenied) {
        return format!("{error}, whose socket belongs to another user");
    }
    error.to_string()
}

/// What the system means by an error of its own, and what to do.
fn describe_io_error(error: &io::Error) -> Option<&'static str> {
    // Without a number it is not an error of the system's.
    error.raw_os_error()?;
    let known = [
        (ErrorKind::StorageFull, "there is no space left on that disk; make room and try again"),
        (ErrorKind::QuotaExceeded, "your share of that disk is used up; make room and try again"),
        (ErrorKind::PermissionDenied, "permission denied; it must belong to the user who runs nanokimi"),
        (ErrorKind::ReadOnlyFilesystem, "that disk can only be read; choose another folder with --home"),
        (ErrorKind::NotADirectory, "a part of that path is a file, not a folder"),
        (ErrorKind::IsADirectory, "that is a folder, not a file; move it away"),
        (ErrorKind::NotFound, "there is no such file or folder"),
    ];
    known.iter().find(|(kind, _)| *kind == error.kind()).map(|(_, words)| *words)
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    fn denied() -> Result<(), io::Error> {
        Err(io::Error::from_raw_os_error(rustix::io::Errno::ACCESS.raw_os_error()))
    }

    #[test]
    fn an_error_is_one_line_in_plain_words() {
        let error = denied().context("Failed to read /x").context("Failed to begin").unwrap_err();
        insta::assert_snapshot!(render_error(&error), @"Failed to begin: Failed to read /x: permission denied; it must belong to the user who runs nanokimi");
    }

    #[test]
    fn nothing_is_said_twice() {
        let error = anyhow!("refused").context("Failed to connect: refused");
        insta::assert_snapshot!(render_error(&error), @"Failed to connect: refused");
    }

    #[test]
    fn of_what_lies_beneath_docker_only_a_closed_door_is_told() {
        let error = denied().context("client error").context("Docker does not answer at /d").unwrap_err();
        insta::assert_snapshot!(describe_docker_error(&error), @"Docker does not answer at /d, whose socket belongs to another user");
        let error = anyhow!("hyper: 7").context("Docker does not answer at /d");
        insta::assert_snapshot!(describe_docker_error(&error), @"Docker does not answer at /d");
    }
}
