//! What the machine is set to, as its files say.

use std::fs;
use std::path::{Path, PathBuf};

use jiff::tz;

/// The machine's time zone, by its IANA name, if its files tell one.
pub fn system_time_zone() -> Option<String> {
    time_zone_from_files(Path::new("/etc"), Path::new("/usr/share/zoneinfo"))
}

/// As a link, localtime(5); else as Debian notes it beside; else as a copy of one of the database's files.
fn time_zone_from_files(etc: &Path, database: &Path) -> Option<String> {
    let local = etc.join("localtime");
    let linked = fs::read_link(&local)
        .ok()
        .and_then(zone_name_from_path)
        .or_else(|| zone_name_from_path(local.canonicalize().ok()?));
    linked
        .or_else(|| read_timezone_file(&etc.join("timezone")))
        .or_else(|| find_zone_by_content(&local, database))
}

/// The zone whose file this is.
fn zone_name_from_path(file: PathBuf) -> Option<String> {
    let (_, name) = file.to_str()?.rsplit_once("zoneinfo/")?;
    Some(name.strip_prefix("posix/").unwrap_or(name).to_owned())
}

fn read_timezone_file(file: &Path) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned)
}

fn find_zone_by_content(local: &Path, database: &Path) -> Option<String> {
    let local = fs::read(local).ok()?;
    let mut names = tz::db().available();
    names
        .find(|name| fs::read(database.join(name.as_str())).is_ok_and(|zone| zone == local))
        .map(|name| name.to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct Machine(tempfile::TempDir);

    impl Machine {
        fn new() -> Self {
            let machine = Self(tempfile::tempdir().unwrap());
            for folder in ["etc", "zoneinfo/Europe", "zoneinfo/posix/Europe"] {
                fs::create_dir_all(machine.0.path().join(folder)).unwrap();
            }
            for zone in ["Europe/Madrid", "posix/Europe/Madrid", "Europe/Paris", "UTC"] {
                fs::write(machine.0.path().join("zoneinfo").join(zone), zone.replace("posix/", "")).unwrap();
            }
            machine
        }

        fn localtime(self, target: &str) -> Self {
            symlink(target, self.0.path().join("etc/localtime")).unwrap();
            self
        }

        fn writes(self, file: &str, text: &str) -> Self {
            fs::write(self.0.path().join("etc").join(file), text).unwrap();
            self
        }

        fn zone(&self) -> Option<String> {
            time_zone_from_files(&self.0.path().join("etc"), &self.0.path().join("zoneinfo"))
        }
    }

    #[test]
    fn a_machine_says_its_zone_in_one_of_several_ways() {
        let madrid = Some("Europe/Madrid".to_owned());
        for target in [
            "/usr/share/zoneinfo/Europe/Madrid",
            "../usr/share/zoneinfo/Europe/Madrid",
            "../zoneinfo/posix/Europe/Madrid",
            "/etc/zoneinfo/Europe/Madrid",
        ] {
            assert_eq!(Machine::new().localtime(target).zone(), madrid, "{target}");
        }
        let through_another = Machine::new().localtime("zone");
        symlink("../zoneinfo/Europe/Madrid", through_another.0.path().join("etc/zone")).unwrap();
        assert_eq!(through_another.zone(), madrid);
        assert_eq!(Machine::new().writes("timezone", "Europe/Madrid\n").zone(), madrid);
        assert_eq!(Machine::new().writes("timezone", "# ours\n\n Europe/Madrid \n").zone(), madrid);
        assert_eq!(Machine::new().writes("localtime", "Europe/Madrid").zone(), madrid);
        // The link is what the system goes by.
        let both =
            Machine::new().localtime("/usr/share/zoneinfo/Europe/Paris").writes("timezone", "Europe/Madrid");
        assert_eq!(both.zone(), Some("Europe/Paris".to_owned()));
    }

    #[test]
    fn a_machine_may_say_nothing() {
        assert_eq!(Machine::new().zone(), None);
        assert_eq!(Machine::new().writes("localtime", "a zone of its own").zone(), None);
        assert_eq!(Machine::new().writes("timezone", "\n").zone(), None);
        assert_eq!(Machine::new().localtime("nowhere").zone(), None);
    }
}
